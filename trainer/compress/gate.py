"""The quality gate: which measured variant may be shipped, and what to say of each. Pure; no files, no torch.

The rule. A variant *passes* when its accuracy fell by no more than the allowed share. Of those that pass, are
smaller than the original and take no more than 1.5 times as long, the smallest file after DEFLATE is *chosen*
(that is what is stored and moved); of equals, the faster. When there is none, the original is.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.contract import VariantReport

ORIGINAL = "original"
MAX_SLOWDOWN = 1.5
_ROUNDING = 1e-9  # 0.98 - 0.97 is a little more than 0.01 in binary


def passes(accuracy_drop: float, *, max_accuracy_drop: float) -> bool:
    return accuracy_drop <= max_accuracy_drop + _ROUNDING


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
) -> str:
    """One honest sentence. Every pair is (the original's, this variant's)."""
    if name == ORIGINAL:
        return "The yardstick: the others are compared with it."
    said = [_size(*size), _speed(*latency_ms), _accuracy(accuracy_drop)]
    if size[1] > 0.9 * size[0] and compressed[1] < 0.9 * compressed[0]:
        said.insert(1, f"{compressed[0] / compressed[1]:.1f}x smaller once compressed")
    if not passes(accuracy_drop, max_accuracy_drop=max_accuracy_drop):
        said.append(f"more than the allowed {100 * max_accuracy_drop:.1f} points, so it did not pass")
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


def _accuracy(drop: float) -> str:
    if abs(drop) < 5e-5:
        return "same accuracy"
    return f"accuracy {abs(100 * drop):.2f} points {'lower' if drop > 0 else 'higher'}"
