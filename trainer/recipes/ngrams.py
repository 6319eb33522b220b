"""Counts of what follows what: the language model that needs no network, and the one to beat.

Contexts of up to two characters, each backed by the next shorter one as Witten and Bell do (1991): what follows
a context is believed the more, the fewer different things followed it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

ORDER = 2  # characters of context: more would remember the documents, not the language

Counts = dict[tuple[int, ...], Counter[int]]


class NGrams:
    """Learns from encoded windows with the character after each; `answers` gives shares like a graph does."""

    def __init__(
        self, encoded: npt.NDArray[np.generic], targets: npt.NDArray[np.generic], classes: int
    ) -> None:
        self.classes = classes
        counts: Counts = defaultdict(Counter)
        for row, target in zip(encoded, targets, strict=True):
            ids = [*row.tolist(), int(target)]
            for at in range(1, len(ids)):
                for size in range(min(ORDER, at) + 1):
                    counts[tuple(ids[at - size : at])][ids[at]] += 1
        self.counts = dict(counts)

    def answers(self, encoded: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        return np.stack([self.line(row.tolist()) for row in encoded])

    def line(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """The shares of what comes after `ids`."""
        shares: npt.NDArray[Any] = np.full(self.classes, 1.0 / self.classes)
        for size in range(min(ORDER, len(ids)) + 1):
            seen = self.counts.get(tuple(ids[len(ids) - size :]))
            if seen is None:
                break  # a longer context was not seen either
            kinds, total = len(seen), seen.total()
            shares = shares * (kinds / (total + kinds))
            numbers = np.fromiter(seen.keys(), dtype=np.int64, count=kinds)
            shares[numbers] += np.fromiter(seen.values(), dtype=np.float64, count=kinds) / (total + kinds)
        return shares.astype(np.float32)
