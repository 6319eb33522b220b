"""What a table looks like, column by column, in one pass: type, missing, distinct values, extremes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})  # as the engine reads them
BOOLEANS = frozenset({"true", "false"})
TOP = 50
_MOST_DISTINCT = 1000
_DISTINCT_OF_ALL = 200_000  # of all columns together: a wide table must not fill the memory
_SHOWN = 200  # characters of a value that is shown
_BATCH = 2000
ODD_SHOWN = 5
ODD_SOUGHT = 50  # a column that begins with more of them is not looked at for numbers any further
ODD_SHARE = 0.1  # so few values that are no numbers are worth a word; more of them are a text


class TableProfile:
    """Feed it rows of text, then ask for `columns()`."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._waiting: list[dict[str, str]] = []
        self._numbers: list[int] = []
        self.row_count = 0

    def add(self, row: dict[str, str], number: int = 0) -> None:
        """`number` is that of the row in its file, where it is known."""
        self._waiting.append(row)
        self._numbers.append(number or self.row_count + len(self._waiting))
        if len(self._waiting) >= _BATCH:
            self._take()

    def __len__(self) -> int:
        return len(self._columns)

    def columns(self) -> list[dict[str, Any]]:
        self._take()
        return [column.describe(self.row_count) for column in self._columns.values()]

    def _take(self) -> None:
        for row in self._waiting:
            for name in row:
                if name not in self._columns:
                    self._columns[name] = _Column(name)
        limit = max(2, min(_MOST_DISTINCT, _DISTINCT_OF_ALL // max(1, len(self._columns))))
        for name, column in self._columns.items():
            column.add([row.get(name, "") for row in self._waiting], self._numbers, limit)
        self.row_count += len(self._waiting)
        self._waiting, self._numbers = [], []


class _Column:
    def __init__(self, name: str) -> None:
        self.name = name
        self.present = 0
        self.is_number = self.is_boolean = True
        self.numbers = 0
        self.odd: list[dict[str, Any]] = []  # the first values that are no numbers, among numbers
        self.odd_count = 0
        self.low, self.high = math.inf, -math.inf
        self.counts: Counter[str] | None = Counter()

    def add(self, values: list[str], rows: list[int], limit: int) -> None:
        for value, count in Counter(values).items():
            if value.strip().lower() in MISSING_WORDS:
                continue
            self.present += count
            self._learn_type(value, count, partial(_row_of, rows, values, value))
            if self.counts is not None:
                self.counts[_short(value)] += count
                if len(self.counts) > limit:
                    self.counts = None

    def _learn_type(self, value: str, count: int, row_of: Callable[[], int]) -> None:
        if self.is_boolean and value.strip().lower() not in BOOLEANS:
            self.is_boolean = False
        if self.is_text:
            return
        try:
            number = float(value)
        except ValueError:
            number = math.inf
        # Python also reads 1_000 as a number; nobody who writes it into a table means one
        if math.isfinite(number) and "_" not in value:
            self.numbers += count
            self.low, self.high = min(self.low, number), max(self.high, number)
            return
        self.is_number = False
        self.odd_count += count
        if len(self.odd) < ODD_SHOWN:
            self.odd.append({"row": row_of(), "value": shown(value)})

    @property
    def is_text(self) -> bool:
        """So much of it is no number that nobody meant one."""
        return self.odd_count > max(ODD_SOUGHT, self.numbers)

    def describe(self, rows: int) -> dict[str, Any]:
        kind = "text"
        if self.present:
            kind = "number" if self.is_number else "boolean" if self.is_boolean else "text"
        found: dict[str, Any] = {
            "name": self.name,
            "type": kind,
            "missing": rows - self.present,
            "distinct": len(self.counts) if self.counts is not None else None,
            "top": [[value, count] for value, count in self.counts.most_common(TOP)] if self.counts else [],
        }
        if kind == "number":
            found |= {"min": self.low, "max": self.high}
        if kind == "text" and not self.is_text and self.odd_count <= ODD_SHARE * self.present:
            found["odd"] = {"count": self.odd_count, "first": self.odd}
        return found


def _row_of(rows: list[int], values: list[str], value: str) -> int:
    return rows[values.index(value)]


def shown(value: str) -> str:
    """A value short enough for a page."""
    return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"


def _short(value: str) -> str:
    """A value as a key: long ones keep their beginning and a mark that tells them apart."""
    if len(value) <= _SHOWN:
        return value
    mark = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{value[: _SHOWN - 12]}… #{mark}"
