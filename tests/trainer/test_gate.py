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


def test_the_upper_end_of_the_interval_decides_and_not_the_drop_that_was_seen() -> None:
    sure = gate.drop_bound(lost=5, gained=4, rows=3000)
    unsure = gate.drop_bound(lost=2, gained=1, rows=359)
    assert sure < 0.01 < unsure
    assert gate.passes(1 / 3000, max_accuracy_drop=0.01, drop_high=sure, lost_rows=5)
    assert not gate.passes(1 / 359, max_accuracy_drop=0.01, drop_high=unsure, lost_rows=2)


def test_a_variant_that_lost_no_row_passes_however_few_rows_there_are() -> None:
    high = gate.drop_bound(lost=0, gained=0, rows=30)
    assert high > 0.04  # and the report says so
    assert gate.passes(0.0, max_accuracy_drop=0.01, drop_high=high, lost_rows=0)
    assert not gate.passes(1 / 30, max_accuracy_drop=0.05, drop_high=0.08, lost_rows=1)


def test_an_unsure_variant_is_told_how_far_it_may_be_off() -> None:
    sentence = said(accuracy_drop=0.002, drop_high=0.0174, lost_rows=3)
    assert sentence.endswith(
        "it may be 1.74 points lower on other rows and 1.0 are allowed, so it did not pass"
    )


def test_the_intervals_hold_what_they_promise_on_simulated_rows() -> None:
    import numpy as np

    chance = np.random.default_rng(3)
    held_accuracy = held_drop = 0
    for _ in range(2000):
        # of 400 rows 4 % lose and 2 % gain: a true drop of two points
        kind = chance.choice(3, size=400, p=[0.04, 0.02, 0.94])
        held_drop += gate.drop_bound(lost=(kind == 0).sum(), gained=(kind == 1).sum(), rows=400) >= 0.02
        low, high = gate.wilson(int((chance.random(400) < 0.97).sum()), 400)
        held_accuracy += low <= 0.97 <= high
    assert 0.93 < held_drop / 2000 < 0.99
    assert 0.93 < held_accuracy / 2000 < 0.98


def test_8_bits_that_are_slower_than_the_same_network_in_32_are_told_so() -> None:
    slower = said(latency_ms=(1.0, 0.7), int8_source_ms=0.5)
    assert "1.4x faster here" in slower
    assert "8-bit arithmetic is 1.4x slower here than 32-bit: no faster kernel for these layers" in slower
    assert "8-bit" not in said(latency_ms=(1.0, 0.7), int8_source_ms=0.69)
    assert "8-bit" not in said(latency_ms=(1.0, 0.7), int8_source_ms=None)


def test_a_model_beats_guessing_only_when_chance_is_ruled_out() -> None:
    assert gate.beats_guessing(lost=0, gained=5, rows=10)
    assert gate.beats_guessing(lost=40, gained=90, rows=400)
    assert not gate.beats_guessing(lost=40, gained=45, rows=400)
    assert not gate.beats_guessing(lost=0, gained=0, rows=400)
    assert not gate.beats_guessing(lost=9, gained=1, rows=400)


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (10, 10), (1, 1), (499, 500)])
def test_an_interval_of_accuracy_holds_the_accuracy_and_stays_a_share(right: int, rows: int) -> None:
    low, high = gate.wilson(right, rows)
    assert 0 <= low <= right / rows <= high + 1e-12
    assert high <= 1
    assert high > low
