"""How many workers an endpoint should have, and which to start or retire. Pure: numbers in, numbers out.

The rules follow what Kubernetes' autoscaler and Knative do: the mean load of a window decides, a sudden rush is
answered at once, and going down waits until the whole window agrees.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time

from jobs.states import ReplicaStatus

PANIC_S = 3.0
PANIC_AT = 2.0  # times the target


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmHours:
    """On these days (0 is Monday), between these times (UTC), at least so many workers."""

    days: tuple[int, ...]
    start: time
    end: time  # before `start`: it ends on the next day
    replicas: int

    @classmethod
    def from_json(cls, said: Mapping[str, object]) -> WarmHours:
        """From {"days": [0, 1], "from": "08:00", "to": "18:00", "replicas": 1}; ValueError if it is none."""
        days, replicas = said["days"], said["replicas"]
        if (
            not isinstance(days, list)
            or not days
            or not all(type(one) is int and 0 <= one <= 6 for one in days)
        ):
            raise ValueError("days")
        if type(replicas) is not int or not 1 <= replicas <= 100:
            raise ValueError("replicas")
        start, end = (datetime.strptime(str(said[name]), "%H:%M").time() for name in ("from", "to"))
        return cls(days=tuple(sorted(set(days))), start=start, end=end, replicas=replicas)

    def to_json(self) -> dict[str, object]:
        return {
            "days": list(self.days),
            "from": f"{self.start:%H:%M}",
            "to": f"{self.end:%H:%M}",
            "replicas": self.replicas,
        }

    def hold(self, now: datetime) -> bool:
        """Whether `now` lies within."""
        today, at = now.weekday(), now.time()
        if self.start < self.end:
            return today in self.days and self.start <= at < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and at >= self.start) or (yesterday in self.days and at < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the owner allows."""

    fewest: int
    most: int
    target: int  # requests at once per worker
    up_after_s: float
    down_after_s: float
    zero_after_s: float
    warm: tuple[WarmHours, ...] = ()

    def floor(self, now: datetime) -> int:
        """The fewest workers at this hour."""
        warm = max((one.replicas for one in self.warm if one.hold(now)), default=0)
        return min(self.most, max(self.fewest, warm))


@dataclass(slots=True)
class Load:
    """What one endpoint carried lately: requests inside (running and waiting), by moment."""

    began: float  # when we began to look
    last_request: float  # when a request was last inside
    _seen: deque[tuple[float, float]] = field(default_factory=deque)
    _advice: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, now: float, inside: float, *, asked: bool) -> None:
        self._seen.append((now, inside))
        if asked:
            self.last_request = now

    def decide(self, bounds: Bounds, *, replicas: int, now: float, at: datetime) -> int:
        """How many workers from here on; 0 sends it to sleep."""
        floor = bounds.floor(at)
        if replicas == 0:
            return floor
        _drop_before(self._seen, now - max(bounds.up_after_s, PANIC_S))
        _drop_before(self._advice, now - bounds.down_after_s)
        advice = math.ceil(self._mean(now - bounds.up_after_s) / bounds.target)
        self._advice.append((now, advice))
        rush = self._mean(now - PANIC_S)
        if rush >= PANIC_AT * bounds.target * replicas:
            advice = max(advice, math.ceil(rush / bounds.target))
        if advice <= replicas:
            # down only as far as the whole window agrees, and not before there is a whole window
            seen_s = now - self.began
            advice = max(one for _, one in self._advice) if seen_s >= bounds.down_after_s else replicas
            advice = min(advice, replicas)
        if floor == 0 and now - max(self.last_request, self.began) >= bounds.zero_after_s:
            return 0
        return max(1, floor, min(bounds.most, advice))

    def _mean(self, since: float) -> float:
        values = [inside for moment, inside in self._seen if moment > since]
        return sum(values) / len(values) if values else 0.0


def _drop_before(queue: deque[tuple[float, float]] | deque[tuple[float, int]], moment: float) -> None:
    while queue and queue[0][0] < moment:
        queue.popleft()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one endpoint should have."""

    revision: int
    count: int  # 0: nothing, take down what is there
    beside: Mapping[int, int] = field(default_factory=dict)  # canary and shadow, by revision
    may_start: bool = True  # a failed endpoint keeps what it has and tries nothing new


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """One replica that is there."""

    id: int
    endpoint: int
    revision: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    start: tuple[int, ...]  # revisions, one entry for each replica to start
    retire: tuple[int, ...]  # replicas


def plan(wanted: Mapping[int, Wanted], have: Iterable[Have]) -> Plan:
    """What to start and what to retire, by endpoint. An old revision goes when the new one is all there."""
    start: list[int] = []
    retire: list[int] = []
    by_endpoint: dict[int, list[Have]] = {}
    for one in have:
        by_endpoint.setdefault(one.endpoint, []).append(one)
    for endpoint, want in wanted.items():
        mine = by_endpoint.pop(endpoint, [])
        counts = {want.revision: want.count, **want.beside}
        for revision, count in counts.items():
            there = [one for one in mine if one.revision == revision]
            if want.may_start:
                start += [revision] * (count - len(there))
            # those still starting are the first to be too many
            spare = sorted(there, key=lambda one: (one.status == ReplicaStatus.READY, -one.id))
            retire += [one.id for one in spare[: max(0, len(there) - count)]]
        new = sum(one.revision == want.revision and one.status == ReplicaStatus.READY for one in mine)
        old = [one for one in mine if one.revision not in counts]
        retire += [one.id for one in old if new >= want.count or one.status == ReplicaStatus.STARTING]
    for mine in by_endpoint.values():
        retire += [one.id for one in mine]
    return Plan(start=tuple(start), retire=tuple(retire))
