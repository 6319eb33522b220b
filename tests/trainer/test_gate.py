"""The gate ships the smallest variant that is good and quick enough, and the original when none is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.compress import gate
from trainer.contract import VariantReport

ORIGINAL = VariantReport(
    name="original",
    method="",
    size_bytes=1000,
    compressed_size_bytes=900,
    accuracy=0.98,
    accuracy_drop=0.0,
    holdout_rows=100,
    latency_p50_ms=1.0,
    latency_p95_ms=1.2,
    max_abs_difference=0.0,
    passed_gate=True,
    verdict="",
)


def variant(name: str, size: int, *, passed: bool = True, p50: float = 1.0) -> VariantReport:
    return replace(ORIGINAL, name=name, compressed_size_bytes=size, passed_gate=passed, latency_p50_ms=p50)


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [
        ([], "original"),
        ([variant("int8", 300)], "int8"),
        ([variant("int8", 300), variant("prune-int8", 200)], "prune-int8"),
        ([variant("int8", 300), variant("prune-int8", 200, passed=False)], "int8"),
        ([variant("int8", 300, p50=1.5)], "int8"),
        ([variant("int8", 300, p50=1.51)], "original"),
        ([variant("int8", 300, p50=1.51), variant("prune", 500)], "prune"),
        ([variant("int8", 300, passed=False), variant("prune", 500, passed=False)], "original"),
        ([variant("int8", 900)], "original"),
        ([variant("int8", 300, p50=0.9), variant("other", 300, p50=0.5)], "other"),
    ],
)
def test_the_smallest_that_passes_and_is_not_slow_is_chosen(
    variants: list[VariantReport], chosen: str
) -> None:
    assert gate.choose([ORIGINAL, *variants]) == chosen
    assert gate.choose([*variants, ORIGINAL]) == chosen


@pytest.mark.parametrize(
    ("drop", "allowed", "passed"),
    [
        (0.0, 0.0, True),
        (-0.02, 0.0, True),
        (0.98 - 0.97, 0.01, True),
        (0.0101, 0.01, False),
        (0.5, 1.0, True),
    ],
)
def test_the_allowed_drop_is_allowed_and_no_more(drop: float, allowed: float, passed: bool) -> None:
    assert gate.passes(drop, max_accuracy_drop=allowed) is passed


def said(**changes: object) -> str:
    facts: dict[str, object] = {
        "name": "int8",
        "size": (1000, 250),
        "compressed": (900, 200),
        "latency_ms": (1.0, 1.3),
        "accuracy_drop": 0.004,
        "max_accuracy_drop": 0.01,
        **changes,
    }
    return gate.verdict(**facts)  # type: ignore[arg-type]


def test_the_verdict_says_what_got_worse_too() -> None:
    assert said() == "4.0x smaller, 1.3x slower here, accuracy 0.40 points lower"
    assert said(accuracy_drop=0.03).endswith("more than the allowed 1.0 points, so it did not pass")
    assert said(latency_ms=(1.0, 1.6)).endswith("too slow to be chosen")
    larger = said(size=(1000, 1200), compressed=(900, 1100), latency_ms=(1.0, 1.0), accuracy_drop=0.0)
    assert larger == "1.2x larger, as fast here, same accuracy"


def test_zeros_show_only_once_compressed_and_the_verdict_says_so() -> None:
    sentence = said(size=(1000, 1000), compressed=(900, 450), latency_ms=(1.0, 1.0), accuracy_drop=-0.001)
    assert (
        sentence == "same file size, 2.0x smaller once compressed, as fast here, accuracy 0.10 points higher"
    )
