"""What endpoints are asked, hour by hour, against what their models were trained on. Counts only, never a value."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from jobs import drift
from jobs.models import Endpoint, InputCount, ModelVersion, Revision
from jobs.services.pulses import WorkerWords

KEPT = timedelta(days=31)
FEWEST_ROWS = 200  # below, the index is mostly chance
# gauges with bins in an order, of which KS may be told; "value" has the missing ones behind them
_ORDERED = ("value", "length", "brightness", "contrast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """One bar of a histogram; shares are of all rows (or characters) counted."""

    label: str
    trained: float
    live: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One histogram of one input, then and now."""

    input: str
    what: str
    bins: tuple[Bin, ...]
    psi: float | None
    ks: float | None  # of ordered bins
    ks_by_chance: float | None

    @property
    def name(self) -> str:
        """As a person calls it."""
        return f"{self.input} · {_words()[self.what]}" if self.what not in ("value", "name") else self.input

    @property
    def tone(self) -> str:
        return tone_of(self.psi)

    @property
    def verdict(self) -> str:
        return verdict_of(self.psi)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDrift:
    """What one revision was asked in a window. `gauges` is empty where its version has no profile."""

    revision: Revision
    has_profile: bool
    trained_rows: int
    rows: int
    gauges: tuple[Gauge, ...]  # the furthest first

    @property
    def enough(self) -> bool:
        return self.rows >= FEWEST_ROWS

    @property
    def highest(self) -> Gauge | None:
        return next((one for one in self.gauges if one.psi is not None), None)


def tone_of(psi: float | None) -> str:
    if psi is None:
        return "idle"
    return "ok" if psi < drift.LITTLE else "warn" if psi < drift.MUCH else "bad"


def verdict_of(psi: float | None) -> str:
    words = {
        "idle": _("Not known yet"),
        "ok": _("As trained"),
        "warn": _("Shifted"),
        "bad": _("Another population"),
    }
    return words[tone_of(psi)]


def count_inputs(words: Iterable[WorkerWords], at: datetime) -> None:
    """Add what workers counted to the hour it was counted in. The keeper alone calls it."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    rows: dict[int, int] = defaultdict(int)
    counts: dict[int, list[list[int]]] = {}
    for word in words:
        news = word.news
        if news.input_rows > 0:
            rows[word.revision] += news.input_rows
            counts[word.revision] = _sum(counts.get(word.revision, []), news.inputs)
    for revision, more in rows.items():
        with transaction.atomic():
            InputCount.objects.get_or_create(revision_id=revision, hour=hour)
            known = InputCount.objects.select_for_update().get(revision_id=revision, hour=hour)
            known.rows += more
            known.counts = _sum(known.counts, counts[revision])
            known.save(update_fields=["rows", "counts"])


def forget_old_counts() -> int:
    """Delete hours older than the pages show."""
    return InputCount.objects.filter(hour__lt=timezone.now() - KEPT).delete()[0]


def drift_of(revision: Revision, *, window: timedelta) -> InputDrift:
    """Compare the whole hours a window touches with the profile of the revision's version."""
    first = (timezone.now() - window).replace(minute=0, second=0, microsecond=0)
    profile = profile_of(revision)
    rows, counts = 0, list[list[int]]()
    for one in InputCount.objects.filter(revision=revision, hour__gte=first):
        rows += one.rows
        counts = _sum(counts, one.counts)
    told: Sequence[Mapping[str, Any]] = profile["gauges"] if profile else ()
    if len(counts) != len(told):
        rows, counts = 0, [[0] * len(gauge["counts"]) for gauge in told]
    gauges = [_gauge(one, seen) for one, seen in zip(told, counts, strict=True)]
    gauges.sort(key=lambda gauge: -math.inf if gauge.psi is None else gauge.psi, reverse=True)
    return InputDrift(
        revision=revision,
        has_profile=profile is not None,
        trained_rows=int(profile["rows"]) if profile else 0,
        rows=rows,
        gauges=tuple(gauges),
    )


def highest_psi(endpoint: Endpoint, *, window: timedelta, fewest: int, input_name: str = "") -> float | None:
    """The furthest input of the revision that answers, or one of them; None while too little is known."""
    if endpoint.current is None:
        return None
    found = drift_of(endpoint.current, window=window)
    if found.rows < max(1, fewest):
        return None
    told = [one.psi for one in found.gauges if one.psi is not None and input_name in ("", one.input)]
    return max(told, default=None)


def profile_of(revision: Revision) -> dict[str, Any] | None:
    """The profile of the training rows; None for versions made before it was kept, and for private ones."""
    told = ModelVersion.objects.filter(pk=revision.version_id).values_list("interface__profile", flat=True)
    found = told.first()
    return found if isinstance(found, dict) and isinstance(found.get("gauges"), list) else None


def _gauge(told: Mapping[str, Any], seen: Sequence[int]) -> Gauge:
    trained: Sequence[int] = told["counts"]
    what = str(told["what"])
    ordered = slice(0, -1 if what == "value" else None)
    then, now = trained[ordered], seen[ordered]
    distance = drift.ks(then, now) if what in _ORDERED else None
    total, there = sum(trained), sum(seen)
    return Gauge(
        input=str(told["input"]),
        what=what,
        bins=tuple(
            Bin(label=label, trained=one / total if total else 0.0, live=other / there if there else 0.0)
            for label, one, other in zip(_labels(told), trained, seen, strict=True)
        ),
        psi=drift.psi_of_bins(trained, seen),
        ks=distance,
        ks_by_chance=drift.ks_by_chance(sum(then), sum(now)) if distance is not None else None,
    )


def _labels(told: Mapping[str, Any]) -> list[str]:
    """What each bin is, in words."""
    what = told["what"]
    if what == "name":
        return [*map(str, told["names"]), _("all others"), _("missing")]
    if what == "script":
        return [_scripts().get(name, name) for name in [*SCRIPTS, "none"]]
    if what == "characters":
        return [_scripts().get(name, name) for name in [*SCRIPTS, "digits", "space", "signs"]]
    edges = [f"{edge:.4g}" for edge in told.get("edges", ())]
    if not edges:
        labels = [_("any")]
    else:
        between = [f"{low} – {high}" for low, high in itertools.pairwise(edges)]
        labels = [f"< {edges[0]}", *between, f"≥ {edges[-1]}"]
    return [*labels, _("missing")] if what == "value" else labels


# as trainer.gauges orders them: the web reads nothing of the engine but its contract; a test compares
SCRIPTS = (
    "latin", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "thai", "hangul", "japanese", "han", "other",
)  # fmt: skip


def _words() -> dict[str, str]:
    return {
        "length": _("length"),
        "script": _("script"),
        "characters": _("characters"),
        "brightness": _("brightness"),
        "contrast": _("contrast"),
    }


def _scripts() -> dict[str, str]:
    return {
        "latin": _("Latin"), "greek": _("Greek"), "cyrillic": _("Cyrillic"), "hebrew": _("Hebrew"),
        "arabic": _("Arabic"), "devanagari": _("Devanagari"), "thai": _("Thai"), "hangul": _("Korean"),
        "japanese": _("Japanese"), "han": _("Chinese"), "other": _("other letters"), "digits": _("digits"),
        "space": _("blanks"), "signs": _("signs"), "none": _("no letters"),
    }  # fmt: skip


def _sum(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> list[list[int]]:
    """Bin by bin; where they do not fit together the later ones count."""
    if [len(gauge) for gauge in one] != [len(gauge) for gauge in other]:
        return [list(gauge) for gauge in other]
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(one, other, strict=True)]
