"""Before and after, in numbers and words that claim no more than was measured. No Django."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SAME = 0.05  # latencies and sizes closer than this are told as equal
WIDTH, HEIGHT = 100.0, 220.0  # per cent of the width, px
LEFT, RIGHT, TOP, BOTTOM = 14.0, 4.0, 28.0, 34.0


class Measured(Protocol):
    variant: str
    size_bytes: int
    accuracy: float
    latency_p50_ms: float
    latency_p95_ms: float
    passed_gate: bool
    is_chosen: bool


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


@dataclass(frozen=True, slots=True)
class Dot:
    name: str
    x: str
    y: str
    is_chosen: bool
    passed: bool
    size_bytes: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Label:
    """The names of one dot, or of several that lie on each other."""

    names: list[tuple[str, bool]]  # with whether it is the chosen one
    x: str
    y: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Tick:
    at: str
    value: float


@dataclass(frozen=True, slots=True)
class Scatter:
    """Size against accuracy, laid out in per cent of the width so that text keeps its size on a phone."""

    dots: list[Dot]
    labels: list[Label]
    x_ticks: list[Tick]  # bytes
    y_ticks: list[Tick]  # share
    left: str = f"{LEFT}%"
    right: str = f"{WIDTH - RIGHT}%"
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM
    height: float = HEIGHT
    label_x: str = f"{LEFT - 1.2}%"
    label_y: float = HEIGHT - BOTTOM + 18


def scatter(variants: Sequence[Measured]) -> Scatter:
    """Sizes start at nothing; accuracies only span what was measured, on round numbers."""
    largest = max(one.size_bytes for one in variants)
    unit = 1024 ** min(5, int(math.log(max(largest, 1), 1024)))
    x_values = _round_steps(0.0, largest / unit)
    x_high = x_values[-1]
    lowest, highest = min(one.accuracy for one in variants), max(one.accuracy for one in variants)
    room = (highest - lowest) * 0.2 or 0.01
    y_values = _round_steps(max(0.0, lowest - room), min(1.0, highest + room))
    y_low, y_high = y_values[0], y_values[-1]
    places = [
        (_x(one.size_bytes / unit, 0.0, x_high), _y(one.accuracy, y_low, y_high), one) for one in variants
    ]
    dots = [
        Dot(
            name=one.variant,
            x=f"{x:.2f}%",
            y=f"{y:.1f}",
            is_chosen=one.is_chosen,
            passed=one.passed_gate,
            size_bytes=one.size_bytes,
            accuracy=one.accuracy,
        )
        for x, y, one in places
    ]
    x_ticks = [Tick(f"{_x(value, 0.0, x_high):.2f}%", value * unit) for value in x_values]
    y_ticks = [Tick(f"{_y(value, y_low, y_high):.1f}", value) for value in y_values]
    return Scatter(sorted(dots, key=lambda dot: dot.is_chosen), _labels(places), x_ticks, y_ticks)


def _round_steps(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about four steps apart."""
    raw = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.9999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _labels(places: Sequence[tuple[float, float, Measured]]) -> list[Label]:
    """One label for dots that touch; above its dot where there is room, else below, else further down."""
    groups: list[tuple[float, float, list[Measured]]] = []
    for x, y, one in sorted(places, key=lambda place: place[:2]):
        near = next((group for group in groups if abs(group[0] - x) < 3 and abs(group[1] - y) < 12), None)
        if near:
            near[2].append(one)
        else:
            groups.append((x, y, [one]))
    taken: list[float] = []
    labels = []
    for x, y, ones in sorted(groups, key=lambda group: group[1]):
        bottom = HEIGHT - BOTTOM - 4
        wanted = [
            y - 12,
            y + 20,
            *(y + 20 + 15 * n for n in range(1, 12)),
            *(y - 12 - 15 * n for n in range(12)),
        ]
        place = next(at for at in wanted if 10 <= at <= bottom and all(abs(at - old) >= 15 for old in taken))
        taken.append(place)
        anchor = "start" if x < 40 else "end" if x > 60 else "middle"
        names = [(one.variant, one.is_chosen) for one in ones]
        labels.append(Label(names, f"{x:.2f}%", f"{place:.1f}", anchor))
    return labels
