"""Which combinations are tried, and which of the measured ones stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.trainer.test_gate import ORIGINAL
from trainer.compress import search
from trainer.contract import Method, VariantReport

ALL = tuple(Method)


def names(methods: tuple[Method, ...], **facts: bool) -> list[str]:
    return [search.name_of(steps) for steps in search.plan(methods, **facts)]


def test_what_is_built_on_another_combination_comes_after_it() -> None:
    for facts in (
        {"chain": True, "dense": True, "table": False},
        {"chain": True, "dense": True, "table": False, "shared": True},
        {"chain": False, "dense": True, "table": True, "shared": True},
        {"chain": False, "dense": False, "table": False},
    ):
        recipes = search.plan(ALL, **facts)
        assert len(set(recipes)) == len(recipes)
        for at, steps in enumerate(recipes):
            assert len(steps) == 1 or steps[:-1] in recipes[:at]
            assert len(search.name_of(steps)) <= 31  # with -weights4 it must fit the registry's 40 characters


def test_only_what_was_asked_for_is_tried() -> None:
    chain = {"chain": True, "dense": True, "table": False}
    assert names((Method.INT8, Method.PRUNE), **chain) == []
    assert names((Method.STRUCTURED,), **chain) == ["structured-30", "structured-50"]
    assert names((Method.DISTILL,), **chain) == ["distill-25"]
    assert "structured-30-lowrank" in names((Method.STRUCTURED, Method.LOWRANK), **chain)
    bag = {"chain": False, "dense": True, "table": True}
    assert names((Method.VOCABULARY, Method.LOWRANK), **bag) == [
        "lowrank",
        "vocabulary",
        "lowrank-vocabulary",
    ]


def test_methods_with_nothing_to_work_on_are_named() -> None:
    assert search.no_use(ALL, chain=False, dense=True, table=True, shared=True) == [
        Method.STRUCTURED,
        Method.DISTILL,
    ]
    assert search.no_use(ALL, chain=True, dense=True, table=False) == [Method.VOCABULARY, Method.SHARE]


def variant(name: str, size: int, ms: float, accuracy: float = 0.98, *, passed: bool = True) -> VariantReport:
    return replace(
        ORIGINAL,
        name=name,
        compressed_size_bytes=size,
        latency_p50_ms=ms,
        accuracy=accuracy,
        passed_gate=passed,
    )


@pytest.mark.parametrize(
    ("others", "front"),
    [
        ([variant("a", 300, 0.5)], ["original", "a"]),
        ([variant("a", 300, 0.5), variant("worse", 400, 0.6)], ["original", "a"]),
        ([variant("small", 300, 0.9), variant("quick", 400, 0.5)], ["original", "small", "quick"]),
        ([variant("a", 300, 0.5), variant("right", 400, 0.6, 0.99)], ["original", "a", "right"]),
        # a difference in latency within the noise is none
        ([variant("a", 300, 0.52), variant("b", 400, 0.5)], ["original", "a"]),
        ([variant("a", 300, 0.5), variant("twin", 300, 0.5)], ["original", "a", "twin"]),
        ([variant("slower", 400, 1.2), variant("a", 300, 1.0)], ["original", "a"]),
        # one that may not be shipped never pushes out one that may
        (
            [variant("failed", 200, 0.4, 0.98, passed=False), variant("a", 300, 0.5)],
            ["original", "failed", "a"],
        ),
    ],
)
def test_a_variant_stays_unless_another_is_as_small_quick_and_accurate(
    others: list[VariantReport], front: list[str]
) -> None:
    assert search.front([ORIGINAL, *others]) == front


def test_the_original_stays_even_when_all_are_better() -> None:
    assert search.front([ORIGINAL, variant("a", 1, 0.1, 1.0)]) == ["original", "a"]
