"""Before and after, in numbers and words that claim no more than was measured. No Django."""

from __future__ import annotations

from dataclasses import dataclass

SAME = 0.05  # latencies and sizes closer than this are told as equal


@dataclass(frozen=True, slots=True)
class Delta:
    """How one number changed. `kind` picks the words, `times` or `points` the amount."""

    kind: str  # "better" | "worse" | "same"
    tone: str
    amount: float  # how many times smaller or faster, or points of accuracy


def times(before: float, after: float) -> Delta:
    """Smaller is better: sizes and latencies."""
    if before <= 0 or after <= 0 or abs(after - before) <= SAME * before:
        return Delta("same", "idle", 1.0)
    if after < before:
        return Delta("better", "ok", before / after)
    return Delta("worse", "bad", after / before)


def points(before: float, after: float, *, passed: bool) -> Delta:
    """Accuracy, in points. A drop the gate let pass is worth a look, not an alarm."""
    change = 100 * (after - before)
    if abs(change) < 0.005:
        return Delta("same", "idle", 0.0)
    if change > 0:
        return Delta("better", "ok", change)
    return Delta("worse", "warn" if passed else "bad", -change)
