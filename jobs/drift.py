"""How far what a model says now is from what it was trained on. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

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
