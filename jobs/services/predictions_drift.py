"""How far what an endpoint says is from the labels its model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from jobs import drift
from jobs.models import Endpoint
from jobs.services import alerts, traffic
from jobs.services.inputs import tone_of, verdict_of
from jobs.services.pulses import KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionDrift:
    """The predictions of a window beside the labels of the training rows; empty where one is not known."""

    psi: float | None
    rows: int  # predicted
    classes: tuple[tuple[str, float, float], ...]  # name, share in training, share now

    @property
    def tone(self) -> str:
        return tone_of(self.psi)

    @property
    def verdict(self) -> str:
        return verdict_of(self.psi)


def of(endpoint: Endpoint, *, window: timedelta) -> PredictionDrift:
    """Of the window, but at most of the time that samples are kept."""
    trained = alerts.trained_on(endpoint)
    seen = traffic.lately(endpoint, window=min(window, KEPT)).classes
    total, there = sum(trained.values()), sum(seen.values())
    names = sorted(trained.keys() | seen.keys(), key=lambda name: -seen.get(name, 0)) if trained else []
    return PredictionDrift(
        psi=drift.psi(trained, seen),
        rows=there,
        classes=tuple(
            (name, trained.get(name, 0) / total, seen.get(name, 0) / there if there else 0.0)
            for name in names
        ),
    )
