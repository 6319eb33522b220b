"""How often the workers of a revision died in a row, and when the next one may be tried."""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass, field

STEADY_AFTER_S = 30.0  # a worker that lived this long did not die of its own model
DEATHS_TO_GIVE_UP = 5
BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0)


@dataclass(slots=True)
class _Row:
    count: int = 0
    next_try: float = 0.0


@dataclass(slots=True)
class Deaths:
    """By revision. A model that dies again and again must not burn a core for ever."""

    _rows: dict[int, _Row] = field(default_factory=dict)

    def count(self, revision: int, *, lived_s: float) -> bool:
        """Count one more; whether that is enough to give up, which begins a new count."""
        row = self._rows.setdefault(revision, _Row())
        row.count = row.count + 1 if lived_s < STEADY_AFTER_S else 1
        row.next_try = time.monotonic() + BACK_OFF_S[min(row.count, len(BACK_OFF_S)) - 1]
        if row.count < DEATHS_TO_GIVE_UP:
            return False
        del self._rows[revision]
        return True

    def may_try(self, revision: int, now: float) -> bool:
        row = self._rows.get(revision)
        return row is None or now >= row.next_try

    def forget_others(self, wanted: Container[int]) -> None:
        """Keep the counts of revisions that are still wanted."""
        self._rows = {revision: row for revision, row in self._rows.items() if revision in wanted}
