"""The search: which combinations of methods are tried, and which of the measured ones are worth keeping. Pure.

It tries the likely winners first, within a time budget, and keeps the Pareto front: a variant stays only if no
other one is at least as small, as quick and as accurate. What is left out is told, with its verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.compress.gate import ORIGINAL
from trainer.contract import Method, VariantReport

WIDTHS = (30, 50)  # per cent of the channels that structured pruning keeps
STUDENT_WIDTH = 25
BUDGET_S = 120.0  # no new combination is begun after this time
SEARCHED = (Method.STRUCTURED, Method.DISTILL, Method.LOWRANK, Method.VOCABULARY, Method.SHARE)
_NOISE = 1.05  # latencies closer than this are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing done to a network."""

    method: Method
    width: int | None = None  # per cent that stays, where there is a choice

    def __str__(self) -> str:
        return f"{self.method}-{self.width}" if self.width else str(self.method)


Recipe = tuple[Step, ...]


def name_of(steps: Iterable[Step]) -> str:
    return "-".join(map(str, steps))


def plan(
    methods: Sequence[Method], *, chain: bool, dense: bool, table: bool, shared: bool = False
) -> list[Recipe]:
    """The combinations to try, the most promising first; a prefix stands before what is built on it.

    `chain`: channels can be taken out. `dense`: there is a dense layer to split. `table`: a text table.
    `shared`: a table or blocks that can share their numbers.
    """
    asked = set(methods)
    lowrank = Step(method=Method.LOWRANK)
    split = Method.LOWRANK in asked and dense
    tried: list[Recipe] = []
    if Method.STRUCTURED in asked and chain:
        for width in WIDTHS:
            narrow = Step(method=Method.STRUCTURED, width=width)
            tried.append((narrow,))
            if split and not table:
                tried.append((narrow, lowrank))
    if split:
        tried.append((lowrank,))
    if Method.VOCABULARY in asked and table:
        tried.append((Step(method=Method.VOCABULARY),))
        if split:
            tried.append((lowrank, Step(method=Method.VOCABULARY)))
    if Method.DISTILL in asked and chain:
        tried.append((Step(method=Method.DISTILL, width=STUDENT_WIDTH),))
    if Method.SHARE in asked and shared:
        tried.append((Step(method=Method.SHARE),))
    return tried


def no_use(
    methods: Sequence[Method], *, chain: bool, dense: bool, table: bool, shared: bool = False
) -> list[Method]:
    """Methods that were asked for and have nothing to work on in this network."""
    useful = {
        Method.STRUCTURED: chain,
        Method.DISTILL: chain,
        Method.LOWRANK: dense,
        Method.VOCABULARY: table,
        Method.SHARE: shared,
    }
    return [method for method in SEARCHED if method in methods and not useful[method]]


def front(reports: Sequence[VariantReport]) -> list[str]:
    """Names of the variants that no other one beats in size, latency and accuracy alike."""
    return [one.name for one in reports if not any(beats(other, one) for other in reports)]


def beats(one: VariantReport, other: VariantReport) -> bool:
    """At least as small, as quick and as accurate, and clearly better in one of them. The original never loses."""
    if one is other or other.name == ORIGINAL:
        return False
    # a smaller file that fails the gate must not push out one that passes
    if other.passed_gate and not one.passed_gate:
        return False
    no_worse = (
        one.compressed_size_bytes <= other.compressed_size_bytes
        and one.latency_p50_ms <= _NOISE * other.latency_p50_ms
        and one.accuracy >= other.accuracy
    )
    better = (
        one.compressed_size_bytes < other.compressed_size_bytes
        or one.latency_p50_ms * _NOISE < other.latency_p50_ms
        or one.accuracy > other.accuracy
    )
    return no_worse and better
