"""What the compression report shows of a run: every variant beside both yardsticks, and the front. No database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import comparison, front
from jobs.models import ModelVersion

ORIGINAL = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    version: ModelVersion
    size: comparison.Delta
    speed: comparison.Delta  # against the original in the same runtime
    eager: comparison.Delta | None  # against the original in PyTorch
    low: float | None
    high: float | None
    drop_high: float | None  # points that it may be worse by, with 95 % confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    rows: list[Row]
    by_size: front.Chart
    by_latency: front.Chart
    left_out: list[dict[str, Any]]
    allowed: float | None  # points that the gate lets a variant lose
    eager_ms: float | None  # of the original in PyTorch, on the scale of the other latencies


def build(variants: Sequence[ModelVersion], original: ModelVersion) -> Report:
    """The report of one run. `variants` are in the order in which they are shown."""
    share = (original.job.spec.get("compression") or {}).get("max_accuracy_drop")
    allowed = float(share) if isinstance(share, int | float) else None
    eager_ms = eager_latency(original)
    left_out = [one for one in original.manifest.get("left_out") or [] if isinstance(one, dict)]
    points = [*(_beaten(one) for one in left_out), *map(_point, variants)]
    floor = None if allowed is None else original.accuracy - allowed
    return Report(
        rows=[_row(one, original, eager_ms) for one in variants],
        by_size=front.chart(points, by=front.SIZE, floor=floor),
        by_latency=front.chart(points, by=front.LATENCY, floor=floor),
        left_out=left_out,
        allowed=None if allowed is None else 100 * allowed,
        eager_ms=eager_ms,
    )


def eager_latency(original: ModelVersion) -> float | None:
    """The original's median in PyTorch, brought from its own race to the one that all variants ran in."""
    measured = original.manifest.get("eager") or {}
    eager, file = measured.get("latency_p50_ms"), measured.get("original_p50_ms")
    return eager * original.latency_p50_ms / file if eager and file else None


def _row(one: ModelVersion, original: ModelVersion, eager_ms: float | None) -> Row:
    high = one.report.get("drop_high")
    return Row(
        version=one,
        size=comparison.times(original.size_bytes, one.size_bytes),
        speed=comparison.times(original.latency_p50_ms, one.latency_p50_ms),
        eager=None if eager_ms is None else comparison.times(eager_ms, one.latency_p50_ms),
        low=one.report.get("accuracy_low"),
        high=one.report.get("accuracy_high"),
        drop_high=None if high is None else max(0.0, 100 * high),
    )


def _point(one: ModelVersion) -> front.Point:
    return front.Point(
        name=one.variant,
        size_bytes=one.size_bytes,
        latency_ms=one.latency_p50_ms,
        quality=one.accuracy,
        low=one.report.get("accuracy_low"),
        high=one.report.get("accuracy_high"),
        passed=one.passed_gate,
        is_chosen=one.is_chosen,
    )


def _beaten(one: dict[str, Any]) -> front.Point:
    return front.Point(
        name=one["name"],
        size_bytes=one["size_bytes"],
        latency_ms=one["latency_p50_ms"],
        quality=one["accuracy"],
        left_out=True,
    )
