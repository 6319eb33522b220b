"""Before and after, in numbers and words that claim no more than was measured. No Django."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SAME = 0.05  # latencies and sizes closer than this are told as equal
WIDTH, HEIGHT = 100.0, 220.0  # per cent of the width, px
LEFT, RIGHT, TOP, BOTTOM = 14.0, 4.0, 16.0, 34.0


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
    label_dx: int  # px
    label_y: str
    anchor: str
    is_chosen: bool
    passed: bool
    size_bytes: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Tick:
    at: str
    value: float


@dataclass(frozen=True, slots=True)
class Scatter:
    """Size against accuracy, laid out in per cent of the width so that text keeps its size on a phone."""

    dots: list[Dot]
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
    x_low, x_high = _span([one.size_bytes for one in variants], floor=0.0)
    y_low, y_high = _span([one.accuracy for one in variants], ceiling=1.0)
    y_places = _apart(variants, y_low, y_high)
    dots = []
    for one in variants:
        x, y = _x(one.size_bytes, x_low, x_high), _y(one.accuracy, y_low, y_high)
        right_side = x < LEFT + (WIDTH - LEFT - RIGHT) * 0.6
        dots.append(
            Dot(
                name=one.variant,
                x=f"{x:.2f}%",
                y=f"{y:.1f}",
                label_dx=12 if right_side else -12,
                label_y=f"{y_places[one.variant] + 4:.1f}",
                anchor="start" if right_side else "end",
                is_chosen=one.is_chosen,
                passed=one.passed_gate,
                size_bytes=one.size_bytes,
                accuracy=one.accuracy,
            )
        )
    x_ticks = [Tick(f"{_x(value, x_low, x_high):.2f}%", value) for value in _steps(x_low, x_high, 2)]
    y_ticks = [Tick(f"{_y(value, y_low, y_high):.1f}", value) for value in _steps(y_low, y_high, 3)]
    return Scatter(dots, x_ticks, y_ticks)


def _span(
    values: Sequence[float], *, floor: float | None = None, ceiling: float | None = None
) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.18 or max(abs(high) * 0.1, 0.01)
    low, high = low - room, high + room
    if floor is not None:
        low = max(low, floor)
    if ceiling is not None:
        high = min(high, max(ceiling, max(values)))
    return low, high


def _steps(low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * step / count for step in range(count + 1)]


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _apart(variants: Sequence[Measured], low: float, high: float) -> dict[str, float]:
    """Heights of the labels, moved so that no two overlap."""
    places: dict[str, float] = {}
    last = -100.0
    for one in sorted(variants, key=lambda one: _y(one.accuracy, low, high)):
        place = max(_y(one.accuracy, low, high), last + 15)
        places[one.variant] = last = place
    over = last - (HEIGHT - BOTTOM - 6)
    return {name: place - over for name, place in places.items()} if over > 0 else places
