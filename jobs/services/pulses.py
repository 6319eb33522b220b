"""What gateways tell of endpoints, second by second: read by the keeper, kept as samples."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from django.db.models import Q
from django.utils import timezone
from redis.exceptions import RedisError

from jobs import routes
from jobs.gateway.pulse import BOUNDS_MS, PULSE_KEY, PULSES_KEY
from jobs.models import Revision, Sample
from jobs.services.workers import News

log = logging.getLogger(__name__)

SAMPLE_S = 5.0
KEPT = timedelta(hours=48)
_NEW_S = 5.0  # a gateway met for the first time is counted from its start only if that was just now
Key = tuple[str, str, bool]  # endpoint and revision as gateways call them, and whether as a shadow


@dataclass(slots=True)
class _Sum:
    """What one revision did since the last sample."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    rows: int = 0
    us: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerWords:
    """What one worker told of itself since it was last asked."""

    revision: int
    news: News


@dataclass(slots=True)
class Pulses:
    """Turns counters that only grow into what happened since the last look."""

    inside: dict[str, float] = field(default_factory=dict)  # requests inside now, by endpoint
    asked: set[str] = field(default_factory=set)  # endpoints with a request since the last look
    _last: dict[str, dict[Key, list[Any]]] = field(default_factory=dict)  # by gateway
    _sums: dict[Key, _Sum] = field(default_factory=lambda: defaultdict(_Sum))
    _held: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    _looked_at: float = field(default_factory=time.monotonic)
    _sampled_at: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Read what every gateway says now. Without Redis nothing is known of this second."""
        now = time.monotonic()
        passed_s, self._looked_at = max(0.001, now - self._looked_at), now
        self.inside, self.asked = defaultdict(float), set()
        busy_us: dict[str, int] = defaultdict(int)
        waiting: dict[str, float] = defaultdict(float)
        gateways = _gateways()
        for boot, said in gateways.items():
            self._read(boot, said, busy_us)
            for endpoint, count in said["inside"].items():
                self.inside[endpoint] += count
            for endpoint, count in said["parked"].items():
                waiting[endpoint] += count
        for endpoint, us in busy_us.items():
            # Little's law tells of the many short requests that are never inside at the moment of looking
            self.inside[endpoint] = max(self.inside[endpoint], us / 1e6 / passed_s)
        self.asked |= {endpoint for endpoint, count in self.inside.items() if count}
        for endpoint, count in self.inside.items():
            self._held[endpoint].append((count, waiting[endpoint]))
        self._last = {boot: one for boot, one in self._last.items() if boot in gateways}

    def sample(self, words: Iterable[WorkerWords], ready: Mapping[int, int]) -> list[Sample]:
        """Write down the last few seconds of every endpoint that was asked; nothing before they are over.

        `words` of workers, `ready` the replicas that answer; both by the primary key of their revision.
        """
        now = time.monotonic()
        passed_s = now - self._sampled_at
        sums, held = dict(self._sums), dict(self._held)
        self._sums.clear()
        self._held.clear()
        self._sampled_at = now
        if not sums:
            return []
        revisions = _revisions({(endpoint, number) for endpoint, number, _ in sums})
        batches: dict[int, int] = defaultdict(int)
        classes: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for word in words:
            batches[word.revision] += word.news.batches
            for name, count in word.news.classes.items():
                classes[word.revision][name] += count
        at = timezone.now()
        rows = []
        for (endpoint, number, is_shadow), one in sums.items():
            revision = revisions.get((endpoint, number))
            if revision is None:
                continue
            seconds = held.get(endpoint, []) if not is_shadow else []
            rows.append(
                Sample(
                    endpoint_id=revision.endpoint_id,
                    revision=revision,
                    at=at,
                    seconds=passed_s,
                    requests=one.requests,
                    errors=one.errors,
                    refused=one.refused,
                    rows=one.rows,
                    us=one.us,
                    latency=one.latency,
                    in_flight=_mean([inside for inside, _ in seconds]),
                    waiting=_mean([parked for _, parked in seconds]),
                    replicas=ready.get(revision.pk, 0),
                    batches=batches.get(revision.pk, 0),
                    classes=dict(classes.get(revision.pk, {})),
                    is_shadow=is_shadow,
                )
            )
        return Sample.objects.bulk_create(rows)

    @property
    def due(self) -> bool:
        return time.monotonic() - self._sampled_at >= SAMPLE_S

    def _read(self, boot: str, said: dict[str, Any], busy_us: dict[str, int]) -> None:
        known = self._last.get(boot)
        fresh = {
            (endpoint, number, bool(shadow)): counts for endpoint, number, shadow, *counts in said["tallies"]
        }
        self._last[boot] = fresh
        if known is None:
            if time.time() - said["began"] > _NEW_S:
                return  # what it counted before we came was somebody else's to tell
            known = {}
        for key, counts in fresh.items():
            before = known.get(key, [0, 0, 0, 0, 0, [0] * len(counts[5])])
            if counts[:5] == before[:5]:
                continue
            sum_ = self._sums[key]
            sum_.requests += counts[0] - before[0]
            sum_.errors += counts[1] - before[1]
            sum_.refused += counts[2] - before[2]
            sum_.rows += counts[3] - before[3]
            sum_.us += counts[4] - before[4]
            for place, count in enumerate(counts[5]):
                sum_.latency[place] += count - before[5][place]
            if not key[2]:
                self.asked.add(key[0])
                busy_us[key[0]] += counts[4] - before[4]


def forget_old_samples() -> int:
    """Delete what is older than the pages show."""
    return Sample.objects.filter(at__lt=timezone.now() - KEPT).delete()[0]


def _gateways() -> dict[str, dict[str, Any]]:
    """What each gateway said last, by boot; those that fell silent are forgotten."""
    store = routes.redis()
    try:
        members = cast("set[bytes]", store.smembers(PULSES_KEY))
        boots = sorted(one.decode() for one in members)
        if not boots:
            return {}
        texts = cast("list[bytes | None]", store.mget([PULSE_KEY + boot for boot in boots]))
        if silent := [boot for boot, text in zip(boots, texts, strict=True) if text is None]:
            store.srem(PULSES_KEY, *silent)
    except RedisError:
        return {}
    return {boot: json.loads(text) for boot, text in zip(boots, texts, strict=True) if text is not None}


def _revisions(names: set[tuple[str, str]]) -> dict[tuple[str, str], Revision]:
    """Revisions by (public id of the endpoint, number as text)."""
    wanted = Q(pk=None)
    for endpoint, number in names:
        if number.isdigit():
            wanted |= Q(endpoint__public_id=endpoint, number=int(number))
    rows = Revision.objects.filter(wanted).select_related("endpoint")
    return {(one.endpoint.public_id, str(one.number)): one for one in rows}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
