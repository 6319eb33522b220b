"""What rows look like, as a few histograms: taken of the training rows, and counted again while serving. numpy only.

A *gauge* is one histogram of one input, and a *profile* is what travels in bundle.json::

    {"rows": 800, "gauges": [{"input": "age", "what": "value", "edges": [23.0, 31.5], "counts": [80, 84, 79, 3]},
                             {"input": "job", "what": "name", "names": ["clerk", "cook"], "counts": [310, 205, 41, 0]}]}

what        bins, in the order of `counts`
value       a number: one more than edges, then the missing ones
name        a word of few: the names, then all others, then the missing ones
length      characters of a text: one more than edges
script      in which script most of a text's letters are: SCRIPTS, then none
characters  characters (not rows) by kind: KINDS
brightness  mean of a picture, 0..1: one more than edges
contrast    standard deviation of a picture: one more than edges

Rows are only counted, but edges are values: quantiles of what was measured, often the very number of a row; of few
distinct numbers the middles between them; and where all rows have the same number, that one. A name is told only
where NAME_SEEN training rows or more have it. A model that was trained privately has no profile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import Recipe
from trainer.data import Columns, is_missing

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

MOST_INPUTS = 200
MOST_ROWS = 4000  # of the training rows: bins need no more
BINS = 10
MOST_NAMES = 20
NAME_SEEN = 5
MOST_CHARACTERS = 500  # of a text that are looked at
TABLES = (Recipe.TABULAR, Recipe.REGRESSION)
PROFILED = (*TABLES, Recipe.TEXT, Recipe.READER, Recipe.INTENT, Recipe.SENTIMENT, Recipe.IMAGE)

SCRIPTS = (
    "latin",
    "greek",
    "cyrillic",
    "hebrew",
    "arabic",
    "devanagari",
    "thai",
    "hangul",
    "japanese",
    "han",
    "other",
)
KINDS = (*SCRIPTS, "digits", "space", "signs")
_DIGITS, _SPACE, _SIGNS = len(SCRIPTS), len(SCRIPTS) + 1, len(SCRIPTS) + 2
_JAPANESE, _HAN = SCRIPTS.index("japanese"), SCRIPTS.index("han")
# first code point of a range, and what is in it; everything up to the next one is the same
_RANGES = (
    (0x00, _SPACE), (0x21, _SIGNS), (0x30, _DIGITS), (0x3A, _SIGNS), (0x41, 0), (0x5B, _SIGNS), (0x61, 0),
    (0x7B, _SIGNS), (0xA0, _SPACE), (0xA1, _SIGNS), (0xC0, 0), (0x250, 10), (0x300, _SIGNS), (0x370, 1),
    (0x400, 2), (0x530, 10), (0x590, 3), (0x600, 4), (0x660, _DIGITS), (0x66A, 4), (0x700, 10), (0x750, 4),
    (0x780, 10), (0x900, 5), (0x966, _DIGITS), (0x970, 5), (0x980, 10), (0xE00, 6), (0xE80, 10), (0x1100, 7),
    (0x1200, 10), (0x1E00, 0), (0x1F00, 1), (0x2000, _SPACE), (0x200B, _SIGNS), (0x2C60, 0), (0x2C80, 10),
    (0x2E00, _SIGNS), (0x2E80, _HAN), (0x2FE0, _SIGNS), (0x3040, _JAPANESE), (0x3100, 10), (0x3130, 7),
    (0x3190, _HAN), (0x3200, _SIGNS), (0x3400, _HAN), (0xA000, 10), (0xAC00, 7), (0xD7B0, 10), (0xE000, _SIGNS),
    (0xF900, _HAN), (0xFB00, 10), (0xFB50, 4), (0xFE00, _SIGNS), (0xFE70, 4), (0xFEFF, _SIGNS),
    (0xFF10, _DIGITS), (0xFF1A, _SIGNS), (0xFF21, 0), (0xFF3B, _SIGNS), (0xFF41, 0), (0xFF5B, _SIGNS),
    (0xFF66, _JAPANESE), (0xFFA0, 7), (0xFFE0, _SIGNS), (0x10000, 10), (0x1F000, _SIGNS), (0x20000, _HAN),
    (0x32000, _SIGNS),
)  # fmt: skip
_STARTS = np.asarray([first for first, _kind in _RANGES], dtype=np.uint32)
_KIND_OF = np.asarray([kind for _first, kind in _RANGES], dtype=np.int64)


def profile(recipe: Recipe, inputs: Columns, *, seed: int = 0) -> dict[str, Any] | None:
    """The profile of these rows; None for a model whose inputs say nothing that way (writers, recommenders)."""
    if recipe not in PROFILED or not inputs:
        return None
    rows = len(next(iter(inputs.values())))
    chosen = np.arange(rows)
    if rows > MOST_ROWS:
        chosen = np.sort(np.random.default_rng([seed, 0x6A06]).permutation(rows)[:MOST_ROWS])
    taken = {name: column[chosen] for name, column in list(inputs.items())[:MOST_INPUTS]}
    gauges = [gauge for name, column in taken.items() for gauge in _gauges_of(recipe, name, column)]
    tally = Tally(gauges)
    tally.add(taken)
    return {
        "rows": len(chosen),
        "gauges": [
            {**gauge, "counts": counts} for gauge, counts in zip(gauges, tally.as_lists(), strict=True)
        ],
    }


class Tally:
    """Counts rows into the bins of gauges."""

    def __init__(self, gauges: Sequence[Mapping[str, Any]]) -> None:
        self.rows = 0
        self._gauges = [_Gauge(one) for one in gauges]

    def add(self, inputs: Columns) -> None:
        """Count these rows; an input that is not there is passed over."""
        seen: dict[str, Any] = {}  # what two gauges of one input share
        for gauge in self._gauges:
            column = inputs.get(gauge.input)
            if column is not None and len(column):
                gauge.add(column, seen)
        self.rows += max((len(column) for column in inputs.values()), default=0)

    def as_lists(self) -> list[list[int]]:
        return [gauge.counts.tolist() for gauge in self._gauges]


class _Gauge:
    """One histogram that is being filled."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.input: str = told["input"]
        self.what: str = told["what"]
        self.edges = np.asarray(told.get("edges", ()), dtype=np.float64)
        self.place = {name: number for number, name in enumerate(told.get("names", ()))}
        self.counts: Counts = np.zeros(self._size(), dtype=np.int64)

    def add(self, column: Array, seen: dict[str, Any]) -> None:
        if self.what == "name":
            for value, count in Counter(column.tolist()).items():
                self.counts[self._name(value)] += count
            return
        if self.what in ("script", "characters"):
            kinds = seen.get(f"kinds {self.input}")
            if kinds is None:
                kinds = seen[f"kinds {self.input}"] = kinds_of(column)
            if self.what == "characters":
                self.counts += kinds.sum(axis=0)
                return
            self.counts += np.bincount(scripts_of(kinds), minlength=len(self.counts))
            return
        values = measure(self.what, column)
        missing = np.isnan(values)
        places = np.searchsorted(self.edges, values, side="right")
        if self.what == "value":
            places[missing] = len(self.edges) + 1
        self.counts += np.bincount(places, minlength=len(self.counts))[: len(self.counts)]

    def _name(self, value: object) -> int:
        text = "" if value is None else str(value).strip()
        return len(self.place) + 1 if is_missing(text) else self.place.get(text, len(self.place))

    def _size(self) -> int:
        if self.what == "name":
            return len(self.place) + 2
        if self.what == "script":
            return len(SCRIPTS) + 1
        if self.what == "characters":
            return len(KINDS)
        return len(self.edges) + 1 + (self.what == "value")


def measure(what: str, column: Array) -> npt.NDArray[np.float64]:
    """One number a row."""
    if what == "length":
        return np.asarray([len(str(text)) for text in column], dtype=np.float64)
    if what in ("brightness", "contrast"):
        pixels = column.reshape(len(column), -1).astype(np.float32)
        if column.dtype == np.uint8:
            pixels /= np.float32(255)
        found: npt.NDArray[np.float64] = (
            pixels.mean(axis=1) if what == "brightness" else pixels.std(axis=1)
        ).astype(np.float64)
        return found
    return column.astype(np.float64).reshape(-1)


def kinds_of(texts: Array) -> Counts:
    """How many characters of each kind, one line a text."""
    found = np.zeros((len(texts), len(KINDS)), dtype=np.int64)
    for row, text in enumerate(texts):
        codes = np.frombuffer(str(text)[:MOST_CHARACTERS].encode("utf-32-le", "replace"), dtype="<u4")
        if len(codes):
            kinds = _KIND_OF[np.searchsorted(_STARTS, codes, side="right") - 1]
            found[row] = np.bincount(kinds, minlength=len(KINDS))
    return found


def scripts_of(kinds: Counts) -> Counts:
    """The script of each text; the last number for one without letters. Kana beside Han is Japanese."""
    letters = kinds[:, : len(SCRIPTS)].copy()
    with_kana = letters[:, _JAPANESE] > 0
    letters[with_kana, _JAPANESE] += letters[with_kana, _HAN]
    letters[with_kana, _HAN] = 0
    found: Counts = np.where(letters.any(axis=1), letters.argmax(axis=1), len(SCRIPTS))
    return found


def _gauges_of(recipe: Recipe, name: str, column: Array) -> list[dict[str, Any]]:
    if column.ndim > 1:
        return [
            {"input": name, "what": what, "edges": _edges(measure(what, column))}
            for what in ("brightness", "contrast")
        ]
    if column.dtype != object:
        return [{"input": name, "what": "value", "edges": _edges(measure("value", column))}]
    if recipe in TABLES:
        counts = Counter(str(value).strip() for value in column if not is_missing(str(value)))
        names = [word for word, count in counts.most_common(MOST_NAMES) if count >= NAME_SEEN]
        if names:
            return [{"input": name, "what": "name", "names": names}]
    return [
        {"input": name, "what": "length", "edges": _edges(measure("length", column))},
        {"input": name, "what": "script"},
        {"input": name, "what": "characters"},
    ]


def _edges(values: npt.NDArray[np.float64]) -> list[float]:
    """Between bins of about as many rows each; between the values themselves where they are few."""
    there = values[np.isfinite(values)]
    if not len(there):
        return []
    distinct = np.unique(there)
    if len(distinct) == 1:  # below, there, above
        return [float(distinct[0]), float(np.nextafter(distinct[0], np.inf))]
    if len(distinct) <= BINS:
        return [_short(edge) for edge in (distinct[1:] + distinct[:-1]) / 2]
    quantiles = np.quantile(there, np.linspace(0, 1, BINS + 1)[1:-1])
    # no bin may be empty in training: an edge at the smallest value would cut nothing off
    edges = np.unique(quantiles)
    return [_short(edge) for edge in edges if edge > distinct[0]]


def _short(edge: float) -> float:
    """Nine digits tell all 32-bit numbers apart."""
    return float(f"{edge:.9g}")
