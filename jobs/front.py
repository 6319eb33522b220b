"""The Pareto front as a picture: what each variant weighs or takes, against how good it is. No Django.

Places along the x axis are in per cent of the width, so that text keeps its size on a phone; the axis is
logarithmic, for variants differ by factors. The line is the front: nothing measured lies above and left of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 100.0, 260.0  # per cent of the width, px
LEFT, RIGHT, TOP, BOTTOM = 13.0, 4.0, 28.0, 34.0
TICKS = 5  # at most about as many
SIZE, LATENCY = "size", "latency"
ORIGINAL = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured variant. `low` and `high` are the 95 % interval of its quality, where that is known."""

    name: str
    size_bytes: int
    latency_ms: float
    quality: float
    low: float | None = None
    high: float | None = None
    passed: bool = True
    is_chosen: bool = False
    left_out: bool = False  # another one beats it; its files are gone

    def cost(self, by: str) -> float:
        return float(self.size_bytes) if by == SIZE else self.latency_ms


@dataclass(frozen=True, slots=True)
class Dot:
    point: Point
    kind: str  # "chosen", "failed", "left-out" or ""
    x: str
    y: str
    top: str  # of the interval
    bottom: str


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
class Line:
    x1: str
    y1: str
    x2: str
    y2: str


@dataclass(frozen=True, slots=True)
class Chart:
    by: str
    dots: list[Dot]
    labels: list[Label]
    steps: list[Line]
    x_ticks: list[Tick]  # bytes or milliseconds
    y_ticks: list[Tick]  # share
    floor: str | None  # y of the lowest quality that the gate allows
    left: str = f"{LEFT}%"
    right: str = f"{WIDTH - RIGHT}%"
    bottom: float = HEIGHT - BOTTOM
    height: float = HEIGHT
    label_x: str = f"{LEFT - 1.2}%"
    label_y: float = HEIGHT - BOTTOM + 18


def chart(points: Sequence[Point], *, by: str, floor: float | None) -> Chart:
    """Lay the points out. Named are those of the front, the original and the chosen one; the table has the rest.

    Those left out that are far below all others are not shown.
    """
    kept = [point for point in points if not point.left_out]
    ends = [end for point in kept for end in (point.low, point.high, point.quality) if end is not None]
    ends += [floor] if floor is not None else []
    room = (max(ends) - min(ends)) * 0.08 or 0.01
    y_values = round_steps(max(0.0, min(ends) - room), min(1.0, max(ends) + room))
    y_low, y_high = y_values[0], y_values[-1]
    shown = [point for point in points if y_low <= point.quality <= y_high]
    costs = [max(point.cost(by), 1e-9) for point in shown]
    x_low, x_high = math.log(min(costs) / 1.2), math.log(max(costs) * 1.2)

    def across(cost: float) -> float:
        return LEFT + (math.log(max(cost, 1e-9)) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(quality: float) -> float:
        return TOP + (y_high - quality) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    places = [(across(point.cost(by)), down(point.quality), point) for point in shown]
    corners = _corners(places)
    named = [
        place
        for place in places
        if not place[2].left_out and (place[:2] in corners or place[2].is_chosen or place[2].name == ORIGINAL)
    ]
    return Chart(
        by=by,
        dots=[_dot(x, y, point, down) for x, y, point in sorted(places, key=lambda place: _rank(place[2]))],
        labels=_labels(named),
        steps=_steps(corners),
        x_ticks=[Tick(f"{across(value):.2f}%", value) for value in log_steps(x_low, x_high, by)],
        y_ticks=[Tick(f"{down(value):.1f}", value) for value in y_values],
        floor=None if floor is None else f"{down(max(y_low, min(y_high, floor))):.1f}",
    )


def round_steps(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about four steps apart."""
    raw = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.9999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]


def log_steps(low: float, high: float, by: str) -> list[float]:
    """Round numbers between e**low and e**high: powers of two of bytes, or 1, 2 and 5 times a power of ten."""
    if by == SIZE:
        exponents = range(math.ceil(low / math.log(2) - 1e-9), math.floor(high / math.log(2) + 1e-9) + 1)
        every = max(1, math.ceil(len(exponents) / TICKS))
        return [2.0**exponent for exponent in exponents if exponent % every == 0]
    decades = range(math.floor(low / math.log(10)), math.floor(high / math.log(10)) + 1)
    found: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        round_ones = [factor * 10.0**decade for decade in decades for factor in factors]
        found = [value for value in round_ones if low - 1e-9 <= math.log(value) <= high + 1e-9]
        if len(found) <= TICKS:
            break
    return found


def _rank(point: Point) -> int:
    """Drawn last is on top."""
    return 2 if point.is_chosen else 0 if point.left_out else 1


def _dot(x: float, y: float, point: Point, down: object) -> Dot:
    assert callable(down)
    kind = "left-out" if point.left_out else "chosen" if point.is_chosen else "" if point.passed else "failed"
    low = point.quality if point.low is None else point.low
    high = point.quality if point.high is None else point.high
    return Dot(point, kind, f"{x:.2f}%", f"{y:.1f}", f"{down(high):.1f}", f"{down(low):.1f}")


def _corners(places: Sequence[tuple[float, float, Point]]) -> list[tuple[float, float]]:
    """Where the variants of the front lie, from the cheapest to the best."""
    corners: list[tuple[float, float]] = []
    for x, y, _point in sorted(places, key=lambda place: (place[0], place[1])):
        if not corners or y < corners[-1][1] - 1e-9:
            corners.append((x, y))
    return corners


def _steps(corners: Sequence[tuple[float, float]]) -> list[Line]:
    """The front as a staircase."""
    lines = []
    for (x1, y1), (x2, y2) in itertools.pairwise(corners):
        lines.append(Line(f"{x1:.2f}%", f"{y1:.1f}", f"{x2:.2f}%", f"{y1:.1f}"))
        lines.append(Line(f"{x2:.2f}%", f"{y1:.1f}", f"{x2:.2f}%", f"{y2:.1f}"))
    if corners:
        x, y = corners[-1]
        lines.append(Line(f"{x:.2f}%", f"{y:.1f}", f"{WIDTH - RIGHT}%", f"{y:.1f}"))
    return lines


def _labels(places: Sequence[tuple[float, float, Point]]) -> list[Label]:
    """One label for dots that touch; above its dot where there is room, else below, else further down."""
    groups: list[tuple[float, float, list[Point]]] = []
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
            *(y + 20 + 15 * n for n in range(1, 16)),
            *(y - 12 - 15 * n for n in range(16)),
        ]
        place = next(
            (at for at in wanted if 10 <= at <= bottom and all(abs(at - old) >= 15 for old in taken)), None
        )
        if place is None:
            continue  # more names than lines: the table beside it has them all
        taken.append(place)
        anchor = "start" if x < 40 else "end" if x > 60 else "middle"
        names = [(one.name, one.is_chosen) for one in ones]
        labels.append(Label(names, f"{x:.2f}%", f"{place:.1f}", anchor))
    return labels
