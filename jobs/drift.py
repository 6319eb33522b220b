"""How far what a model is asked and says now is from what it was trained on. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

LITTLE = 0.1  # PSI below: the same; the customary reading in credit scoring (Siddiqi, 2006)
MUCH = 0.25  # PSI above: another population
_EMPTY = 0.5  # a class nobody was counted in: half a row, so that the logarithm exists


def psi(reference: Mapping[str, int], seen: Mapping[str, int]) -> float | None:
    """Population stability index of two counts by class; None where one of them is empty."""
    total, there = sum(reference.values()), sum(seen.values())
    if not total or not there:
        return None
    index = 0.0
    for name in reference.keys() | seen.keys():
        expected = max(reference.get(name, 0), _EMPTY) / total
        found = max(seen.get(name, 0), _EMPTY) / there
        index += (found - expected) * math.log(found / expected)
    return index


def chi_square(reference: Mapping[str, int], seen: Mapping[str, int]) -> tuple[float, float] | None:
    """Pearson's statistic of `seen` against the shares of `reference`, and about how likely chance is.

    The probability is the approximation of Wilson and Hilferty (1931); None with fewer than two classes.
    """
    total, there = sum(reference.values()), sum(seen.values())
    names = [name for name in reference if reference[name]]
    if not total or not there or len(names) < 2:
        return None
    statistic = 0.0
    for name in names:
        expected = there * reference[name] / total
        statistic += (seen.get(name, 0) - expected) ** 2 / expected
    free = len(names) - 1
    spread = 2 / (9 * free)
    z = ((statistic / free) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return statistic, 0.5 * math.erfc(z / math.sqrt(2))


def psi_of_bins(reference: Sequence[int], seen: Sequence[int]) -> float | None:
    """The same index of two histograms with the same bins."""
    return psi(_by_place(reference), _by_place(seen))


def ks(reference: Sequence[int], seen: Sequence[int]) -> float | None:
    """Largest distance of the two cumulated shares (Kolmogorov and Smirnov), at the edges of ordered bins.

    Between the edges it may be larger: it is a lower bound of the distance of the values themselves.
    """
    total, there = sum(reference), sum(seen)
    if not total or not there:
        return None
    distance, expected, found = 0.0, 0.0, 0.0
    for one, other in zip(reference, seen, strict=True):
        expected += one / total
        found += other / there
        distance = max(distance, abs(expected - found))
    return distance


def ks_by_chance(reference: int, seen: int) -> float:
    """The distance that two samples of one population stay below 19 times of 20 (Smirnov, 1948)."""
    return 1.358 * math.sqrt((reference + seen) / (reference * seen))


def _by_place(counts: Sequence[int]) -> dict[str, int]:
    return {str(place): count for place, count in enumerate(counts)}
