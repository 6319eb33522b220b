"""How an endpoint does, for its page, the API and Prometheus: made of the samples the keeper wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from jobs import canaries
from jobs.models import Endpoint, Replica, Revision, Sample
from jobs.services.pulses import SAMPLE_S
from jobs.states import ReplicaStatus

WINDOW = timedelta(minutes=15)
STEP_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What was done in a window of `seconds`. None: not known, for there was no request."""

    seconds: float
    requests: int
    errors: int
    refused: int
    rate: float  # requests a second
    error_share: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    batch: float | None  # rows a batch
    waiting: float
    classes: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One revision that is asked, and how it does."""

    revision: Revision
    role: str  # stable | canary | shadow
    share: int  # basis points of the requests
    ready: int  # workers
    numbers: Numbers

    @property
    def percent(self) -> str:
        return f"{self.share / 100:g}"


def numbers(samples: Iterable[Sample], *, seconds: float) -> Numbers:
    """Sums of samples, as rates and quantiles."""
    rows = list(samples)
    requests = sum(one.requests for one in rows)
    latency = canaries.add(one.latency for one in rows)
    batches = sum(one.batches for one in rows)
    classes: dict[str, int] = defaultdict(int)
    for one in rows:
        for name, count in one.classes.items():
            classes[name] += count
    return Numbers(
        seconds=seconds,
        requests=requests,
        errors=sum(one.errors for one in rows),
        refused=sum(one.refused for one in rows),
        rate=requests / seconds if seconds else 0.0,
        error_share=sum(one.errors for one in rows) / requests if requests else None,
        p50_ms=canaries.quantile_ms(latency, 0.5),
        p95_ms=canaries.quantile_ms(latency, 0.95),
        p99_ms=canaries.quantile_ms(latency, 0.99),
        batch=sum(one.rows for one in rows) / batches if batches else None,
        waiting=max((one.waiting for one in rows), default=0.0),
        classes=dict(classes),
    )


def lately(endpoint: Endpoint, *, window: timedelta) -> Numbers:
    """The last `window` of everything that answered callers."""
    since = timezone.now() - window
    rows = Sample.objects.filter(endpoint=endpoint, at__gte=since, is_shadow=False)
    return numbers(rows, seconds=window.total_seconds())


def legs(endpoint: Endpoint) -> list[Leg]:
    """Every revision that is asked now, since its canary began, but at most the last quarter of an hour."""
    now = timezone.now()
    since = max(endpoint.canary_since or now - WINDOW, now - WINDOW)
    ready: dict[int, int] = defaultdict(int)
    answering = Replica.objects.filter(revision__endpoint=endpoint, status=ReplicaStatus.READY)
    for replica in answering:
        ready[replica.revision_id] += 1
    found = []
    for role, revision, share in (
        ("stable", endpoint.current, 10_000 - endpoint.canary_share),
        ("canary", endpoint.canary, endpoint.canary_share),
        ("shadow", endpoint.shadow, endpoint.shadow_share),
    ):
        if revision is None:
            continue
        rows = Sample.objects.filter(revision=revision, at__gte=since, is_shadow=role == "shadow")
        found.append(
            Leg(
                revision=revision,
                role=role,
                share=share,
                ready=ready[revision.pk],
                numbers=numbers(rows, seconds=max(SAMPLE_S, (now - since).total_seconds())),
            )
        )
    return found


def charts(endpoint: Endpoint, *, window: timedelta = WINDOW) -> dict[str, dict[str, list[list[float]]]]:
    """Lines by chart and legend; x is minutes before now, so that clocks of browsers do not matter."""
    now = timezone.now()
    steps = _steps(endpoint, now=now, window=window)
    names = dict(endpoint.revisions.values_list("pk", "number"))
    seen = sorted({one.revision_id for _step, rows in steps for one in rows})
    rate: dict[str, list[list[float]]] = defaultdict(list)
    latency: dict[str, list[list[float]]] = {"p50": [], "p95": [], "p99": []}
    errors: dict[str, list[list[float]]] = {"errors": [], "refused": []}
    load: dict[str, list[list[float]]] = {"in_flight": [], "waiting": [], "replicas": []}
    batch: list[list[float]] = []
    for step, rows in steps:
        x = round((step - now).total_seconds() / 60, 2)
        by_revision: dict[int, list[Sample]] = defaultdict(list)
        for one in rows:
            by_revision[one.revision_id].append(one)
        for revision in seen:  # nothing is a number here, too: nobody called
            asked = sum(one.requests for one in by_revision.get(revision, ()))
            rate[f"r{names[revision]}"].append([x, asked / STEP_S])
        all_ = numbers(rows, seconds=STEP_S)
        for name, value in (("p50", all_.p50_ms), ("p95", all_.p95_ms), ("p99", all_.p99_ms)):
            if value is not None:
                latency[name].append([x, round(value, 3)])
        errors["errors"].append([x, all_.errors / STEP_S])
        errors["refused"].append([x, all_.refused / STEP_S])
        if all_.batch is not None:
            batch.append([x, round(all_.batch, 2)])
        # samples of one moment tell of the whole endpoint, so the largest is the endpoint's
        load["in_flight"].append([x, round(max((one.in_flight for one in rows), default=0), 2)])
        load["waiting"].append([x, round(all_.waiting, 2)])
        load["replicas"].append([x, _workers(rows)])
    return {"rate": dict(rate), "latency": latency, "errors": errors, "load": load,
            "batch": {"batch": batch}}  # fmt: skip


def _steps(
    endpoint: Endpoint, *, now: datetime, window: timedelta
) -> list[tuple[datetime, Sequence[Sample]]]:
    """Samples by step; a step without one is there, too, with nothing in it: nobody called."""
    first = now - window
    found: dict[int, list[Sample]] = defaultdict(list)
    for one in Sample.objects.filter(endpoint=endpoint, at__gte=first, is_shadow=False):
        found[int((one.at - first).total_seconds() // STEP_S)].append(one)
    if not found:
        return []
    count = int(window.total_seconds() // STEP_S)
    return [(first + timedelta(seconds=STEP_S * place), found.get(place, [])) for place in range(count)]


def _workers(rows: Sequence[Sample]) -> int:
    most: dict[int, int] = defaultdict(int)
    for one in rows:
        most[one.revision_id] = max(most[one.revision_id], one.replicas)
    return sum(most.values())


def as_json(endpoint: Endpoint) -> dict[str, Any]:
    """The last minute and every revision, as the API tells it."""
    last = lately(endpoint, window=timedelta(minutes=1))
    return {
        "status": endpoint.status,
        "replicas_wanted": endpoint.replicas_wanted,
        "last_minute": _told(last),
        "revisions": [
            {
                "revision": leg.revision.number,
                "role": leg.role,
                "percent": leg.share / 100,
                "ready_replicas": leg.ready,
                **_told(leg.numbers),
            }
            for leg in legs(endpoint)
        ],
        "note": endpoint.rollout_note,
    }


def _told(one: Numbers) -> dict[str, Any]:
    return {
        "requests": one.requests,
        "errors": one.errors,
        "refused": one.refused,
        "requests_per_second": round(one.rate, 3),
        "error_share": one.error_share,
        "p50_ms": one.p50_ms,
        "p95_ms": one.p95_ms,
        "p99_ms": one.p99_ms,
        "rows_per_batch": one.batch,
        "waiting": one.waiting,
    }
