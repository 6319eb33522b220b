"""Whether a canary does worse than what answers beside it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.gateway.pulse import BOUNDS_MS

SLACK_MS = 1.0  # two tiny latencies differ by chance; a ratio alone would call that a fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """What one revision did in a window."""

    requests: int
    errors: int
    latency: Sequence[int]  # counts by BOUNDS_MS, one more for the rest

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    def quantile_ms(self, share: float) -> float | None:
        """An estimate by linear interpolation within a class; None without a request."""
        return quantile_ms(self.latency, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What the owner tolerates."""

    error_share: float
    p95_ratio: float
    min_requests: int


def quantile_ms(latency: Sequence[int], share: float) -> float | None:
    """The latency that `share` of the requests stay below, from class counts."""
    total = sum(latency)
    if not total:
        return None
    rank, below = share * total, 0
    for place, count in enumerate(latency):
        if count and below + count >= rank:
            low = BOUNDS_MS[place - 1] if place else 0.0
            high = BOUNDS_MS[place] if place < len(BOUNDS_MS) else BOUNDS_MS[-1]
            return low + (high - low) * (rank - below) / count
        below += count
    return BOUNDS_MS[-1]


def add(parts: Iterable[Sequence[int]]) -> list[int]:
    """Class counts of several samples in one."""
    total = [0] * (len(BOUNDS_MS) + 1)
    for part in parts:
        for place, count in enumerate(part[: len(total)]):
            total[place] += count
    return total


def fault(stable: Did, canary: Did, guard: Guard) -> str:
    """Why the canary must go, as a sentence that is kept in English; empty while it may stay."""
    if canary.requests < guard.min_requests:
        return ""
    # no worse than the stable one is no fault of the canary
    if canary.error_share > max(guard.error_share, stable.error_share):
        return (
            f"{100 * canary.error_share:.1f} % of its {canary.requests} requests failed; "
            f"{100 * guard.error_share:g} % are allowed."
        )
    mine, theirs = canary.quantile_ms(0.95), stable.quantile_ms(0.95)
    if mine is None or theirs is None or stable.requests < guard.min_requests:
        return ""
    if mine > guard.p95_ratio * theirs + SLACK_MS:
        return (
            f"Its p95 was {mine:.1f} ms against {theirs:.1f} ms of the stable revision; "
            f"{guard.p95_ratio:g} times as much is allowed."
        )
    return ""
