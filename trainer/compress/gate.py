"""The quality gate: which measured variant may be shipped, and what to say of each. Pure; no files, no torch.

The rule. A variant *passes* when we are 95 % sure that its accuracy fell by no more than the allowed share: the
upper end of the interval of the drop counts, not the drop that happened to be seen. One that got no held-out
row wrong that the original had right passes too, however few rows there are: its report still says how large
the drop might be. Of those that pass, are smaller than the original and take no more than 1.5 times as long,
the smallest file after DEFLATE is *chosen* (that is what is stored and moved); of equals, the faster. When
there is none, the original is.

The interval is paired: both models answered the same held-out rows, so only the rows where one is right and
the other wrong say anything about the drop. That makes it several times narrower than two intervals side by
side would be, and a few hundred rows are enough to tell one point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.contract import Quality, VariantReport

ORIGINAL = "original"
MAX_SLOWDOWN = 1.5
_ROUNDING = 1e-9  # 0.98 - 0.97 is a little more than 0.01 in binary
_TWO_SIDED_95, _ONE_SIDED_95 = 1.959964, 1.644854


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy; unlike the textbook one it stays within 0 and 1."""
    z, share = _TWO_SIDED_95, right / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def drop_bound(*, lost: int, gained: int, rows: int) -> float:
    """With 95 % confidence the accuracy fell by no more than this.

    `lost` rows were right before and are wrong now, `gained` the other way round. Half a row is added to each
    (Agresti and Min): no row lost of ten does not prove that none of a thousand would be.
    """
    n, b, c = rows + 2, lost + 0.5, gained + 0.5
    spread = math.sqrt(b + c - (b - c) ** 2 / n) / n
    return (b - c) / n + _ONE_SIDED_95 * spread


def interval(figures: Mapping[str, Any]) -> tuple[float, float]:
    """The 95 % interval of the quality of one variant, from what `trainer.scoring` says of it."""
    if figures["counted"]:
        return wilson(figures["right_rows"], figures["holdout_rows"])
    return figures["low"], figures["high"]


def highest_drop(figures: Mapping[str, Any]) -> float:
    """With 95 % confidence the quality fell by no more than this."""
    if figures["counted"]:
        return drop_bound(
            lost=figures["lost_rows"], gained=figures["gained_rows"], rows=figures["holdout_rows"]
        )
    return float(figures["drop_high"])


def beats_guess(figures: Mapping[str, Any]) -> bool:
    """Whether a variant is better than the simplest guess, and not by chance."""
    if figures["counted"]:
        lost, gained = figures["lost_to_guess"], figures["gained_on_guess"]
        return beats_guessing(lost=lost, gained=gained, rows=figures["holdout_rows"])
    return bool(figures["behind_guess"] < 0)


def beats_guessing(*, lost: int, gained: int, rows: int) -> bool:
    """Whether a model is better than the simplest guess, and not by chance: with 95 % confidence.

    `gained` rows are right where the guess is wrong, `lost` the other way round.
    """
    return drop_bound(lost=lost, gained=gained, rows=rows) < 0


def passes(
    accuracy_drop: float,
    *,
    max_accuracy_drop: float,
    drop_high: float | None = None,
    lost_rows: int | None = None,
) -> bool:
    """Whether the drop, and the largest it may be if that is known, is allowed."""
    sure = drop_high is None or lost_rows == 0
    worst = accuracy_drop if sure else max(accuracy_drop, drop_high or 0.0)
    return worst <= max_accuracy_drop + _ROUNDING


def choose(reports: Sequence[VariantReport]) -> str:
    """The name of the variant to ship."""
    original = next(report for report in reports if report.name == ORIGINAL)
    fit = [
        report
        for report in reports
        if report.name != ORIGINAL
        and report.passed_gate
        and report.compressed_size_bytes < original.compressed_size_bytes
        and report.latency_p50_ms <= MAX_SLOWDOWN * original.latency_p50_ms
    ]
    if not fit:
        return ORIGINAL
    return min(fit, key=lambda report: (report.compressed_size_bytes, report.latency_p50_ms)).name


def verdict(
    *,
    name: str,
    size: tuple[int, int],
    compressed: tuple[int, int],
    latency_ms: tuple[float, float],
    accuracy_drop: float,
    max_accuracy_drop: float,
    drop_high: float | None = None,
    lost_rows: int | None = None,
    quality: str = Quality.ACCURACY,
    int8_source_ms: float | None = None,
) -> str:
    """One honest sentence. Every pair is (the original's, this variant's).

    `int8_source_ms`: how long the same network takes in 32 bits, of one that calculates in 8.
    """
    if name == ORIGINAL:
        return "The yardstick: the others are compared with it."
    said = [_size(*size), _speed(*latency_ms), _accuracy(accuracy_drop, quality)]
    if size[1] > 0.9 * size[0] and compressed[1] < 0.9 * compressed[0]:
        said.insert(1, f"{compressed[0] / compressed[1]:.1f}x smaller once compressed")
    if int8_source_ms is not None and latency_ms[1] > 1.05 * int8_source_ms:
        times = latency_ms[1] / int8_source_ms
        said.append(
            f"8-bit arithmetic is {times:.1f}x slower here than 32-bit: no faster kernel for these layers"
        )
    allowed = f"{100 * max_accuracy_drop:.1f}"
    if not passes(accuracy_drop, max_accuracy_drop=max_accuracy_drop):
        said.append(f"more than the allowed {allowed} points, so it did not pass")
    elif not passes(
        accuracy_drop, max_accuracy_drop=max_accuracy_drop, drop_high=drop_high, lost_rows=lost_rows
    ):
        assert drop_high is not None
        said.append(
            f"it may be {100 * drop_high:.2f} points lower on other rows and {allowed} are allowed, "
            "so it did not pass"
        )
    elif latency_ms[1] > MAX_SLOWDOWN * latency_ms[0]:
        said.append("too slow to be chosen")
    return ", ".join(said)


def _size(original: int, variant: int) -> str:
    if variant < 0.95 * original:
        return f"{original / variant:.1f}x smaller"
    return f"{variant / original:.1f}x larger" if variant > 1.05 * original else "same file size"


def _speed(original_ms: float, variant_ms: float) -> str:
    if variant_ms < 0.95 * original_ms:
        return f"{original_ms / variant_ms:.1f}x faster here"
    if variant_ms > 1.05 * original_ms:
        return f"{variant_ms / original_ms:.1f}x slower here"
    return "as fast here"


def _accuracy(drop: float, quality: str) -> str:
    if abs(drop) < 5e-5:
        return f"same {quality}"
    return f"{quality} {abs(100 * drop):.2f} points {'lower' if drop > 0 else 'higher'}"
