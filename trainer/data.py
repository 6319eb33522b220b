"""Rows: reading tables, dropping doubles, the held-out split, and which rank sees which row. No torch."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec
from trainer.failures import BadData

Columns = dict[str, npt.NDArray[np.generic]]  # float32 and uint8 numbers, or objects: str
Indices = npt.NDArray[np.int64]

MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
MIN_ROWS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Raw rows as a client would send them, with the answer beside each."""

    inputs: Columns
    labels: npt.NDArray[np.generic]  # objects: str; numbers where a number is to be predicted
    extra: Columns = field(default_factory=dict)  # what training knows besides and no client sends

    def take(self, rows: Indices) -> Rows:
        return Rows(inputs=take(self.inputs, rows), labels=self.labels[rows], extra=take(self.extra, rows))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    train: Indices
    holdout: Indices  # never trained on: what the model is judged by
    watched: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # say when to stop training

    @property
    def seen_meanwhile(self) -> Indices:
        """The rows that training is measured on after each epoch."""
        return self.watched if len(self.watched) else self.holdout


def take(inputs: Mapping[str, npt.NDArray[np.generic]], rows: Indices) -> Columns:
    return {name: column[rows] for name, column in inputs.items()}


def words(values: list[str]) -> npt.NDArray[np.generic]:
    """Text as an object array: numpy's own text type pads every value to the longest."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def read_table(folder: Path, data: DataSpec) -> tuple[dict[str, list[str | None]], list[str]]:
    """Read a CSV or JSON Lines file into columns of text; also returns what to call each row in an error."""
    path = folder / data.path
    if not path.is_file():
        raise BadData(f"{data.path} is not in the run folder.")
    reader = _read_jsonl if data.format == "jsonl" else _read_csv
    records: list[dict[str, str | None]] = []
    places: list[str] = []
    for place, record in reader(path, data.path):
        records.append(record)
        places.append(place)
    if not records:
        raise BadData(f"{data.path} has no rows.")
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: [record.get(name) for record in records] for name in names}, places


def column(
    table: Mapping[str, list[str | None]], name: str | None, role: str, data: DataSpec
) -> list[str | None]:
    """Look a column up by its name, or say which ones there are."""
    if name is None:
        raise BadData(f"The run spec names no {role} column for {data.path}.")
    if name not in table:
        raise BadData(f"{data.path} has no column {name!r} ({role}); it has: {', '.join(table)}.")
    return table[name]


def required(values: list[str | None], places: list[str], name: str) -> list[str]:
    """Every value of a column that may not be empty, or BadData naming the row."""
    for value, place in zip(values, places, strict=True):
        if value is None or not value.strip():
            raise BadData(f"{place}: column {name!r} is empty. Fill it in or remove the row.")
    return [str(value) for value in values]


def is_missing(value: str | None) -> bool:
    return value is None or value.strip().lower() in MISSING_WORDS


def without_doubles(rows: Rows) -> tuple[Rows, int]:
    """Keep the first of identical rows: one on each side of the split would give the answer away."""
    names = sorted(rows.inputs)
    seen: set[tuple[object, ...]] = set()
    keep: list[int] = []
    for index in range(len(rows)):
        key = (rows.labels[index], *(_key(rows.inputs[name][index]) for name in names))
        if key not in seen:
            seen.add(key)
            keep.append(index)
    return rows.take(np.asarray(keep, dtype=np.int64)), len(rows) - len(keep)


def contradictions(rows: Rows) -> int:
    """How many rows say the same as another one and have another label. Call it without doubles."""
    names = sorted(rows.inputs)
    if any(rows.inputs[name].ndim > 1 for name in names):
        return 0  # pictures: the same pixels twice are rare, and looking for them is not
    seen = Counter(tuple(_key(rows.inputs[name][index]) for name in names) for index in range(len(rows)))
    return sum(count for count in seen.values() if count > 1)


def classes_of(labels: npt.NDArray[np.generic]) -> tuple[str, ...]:
    """The distinct labels; in the order of numbers when all are whole numbers."""
    names = sorted({str(label) for label in labels})
    if all(name.lstrip("-").isdecimal() for name in names):
        names.sort(key=int)
    if len(names) < 2:
        raise BadData(f"All rows have the label {names[0]!r}: a classifier needs at least two classes.")
    if len(labels) < MIN_ROWS:
        raise BadData(
            f"Only {len(labels)} different rows: at least {MIN_ROWS} are needed to train and to test."
        )
    return tuple(names)


def split(labels: Indices, *, holdout: float, seed: int) -> Split:
    """Hold out the same share of every class, the same rows for the same seed.

    A class with a single row is trained on: there is nothing to compare it with.
    """
    shuffle = np.random.default_rng([seed, 0x5117])
    held: list[Indices] = []
    for label in np.unique(labels):
        rows = shuffle.permutation(np.flatnonzero(labels == label)).astype(np.int64)
        count = min(max(1, round(len(rows) * holdout)), len(rows) - 1)
        held.append(rows[:count])
    holdout_rows = np.sort(np.concatenate(held))
    train_rows = np.setdiff1d(np.arange(len(labels), dtype=np.int64), holdout_rows)
    if not len(holdout_rows):
        raise BadData("Every class has a single row, so nothing is left to test on: add rows.")
    return Split(train=train_rows, holdout=holdout_rows)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def epoch_order(rows: int, *, seed: int, epoch: int) -> Indices:
    """The order of an epoch, a pure function of seed and epoch, so that resuming needs no stored state."""
    return np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int64)


def shard(batch: Indices, *, rank: int, world: int) -> Indices:
    """This rank's rows of one global batch: every row belongs to exactly one rank. May be empty."""
    return batch[rank::world]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far training has come: in which epoch, and how many rows of it are learned, by all ranks together."""

    epoch: int = 0
    cursor: int = 0


def global_batches(
    rows: int, *, batch_size: int, seed: int, epochs: int, start: Position
) -> Iterator[tuple[Position, Indices]]:
    """What is left to learn from `start` on: each global batch, and the position after it.

    A pure function of its arguments. The number of ranks is not among them, so it may change at any step.
    """
    for epoch in range(start.epoch, epochs):
        order = epoch_order(rows, seed=seed, epoch=epoch)
        first = start.cursor if epoch == start.epoch else 0
        for cursor in range(first, rows, batch_size):
            batch = order[cursor : cursor + batch_size]
            yield Position(epoch=epoch, cursor=cursor + len(batch)), batch


def pieces_of_a_step(asked: int, *, world: int, accumulation: int | str) -> int:
    """Into how many pieces each global batch is cut; piece p belongs to rank p % world.

    Fixed by the spec, not by the ranks there happen to be: with fewer of them each takes several pieces in
    turn (gradient accumulation), and dropout and memory a piece stay what they were.
    """
    pieces = asked * (1 if accumulation == "auto" else int(accumulation))
    return max(pieces, world)


def batches(order: Indices, batch_size: int) -> Iterator[Indices]:
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _key(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return None if value != value else value  # NaN is not equal to itself; two missing values are the same


def _read_csv(path: Path, shown: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            doubled = {name for name in header if header.count(name) > 1}
            if doubled:
                raise BadData(f"{shown}: the header names {', '.join(sorted(doubled))} more than once.")
            row = 0
            for record in reader:
                if not record:
                    continue
                row += 1
                place = f"{shown}, row {row} (line {reader.line_num})"
                if len(record) != len(header):
                    raise BadData(f"{place}: {len(record)} fields, but the header has {len(header)}.")
                yield place, dict(zip(header, record, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadData(f"{shown} cannot be read as UTF-8 CSV: {error}.") from None


def _read_jsonl(path: Path, shown: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    with path.open("rb") as file:
        row = 0
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row += 1
            place = f"{shown}, row {row} (line {number})"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise BadData(f"{place}: not JSON: {error}.") from None
            if not isinstance(record, dict):
                raise BadData(f'{place}: a row is a JSON object, such as {{"text": "..."}}.')
            yield place, {name: _as_text(value, place, name) for name, value in record.items()}


def _as_text(value: object, place: str, name: str) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        raise BadData(
            f"{place}: column {name!r} holds a list or an object; only plain values can be learned."
        )
    return None if value is None else str(value)
