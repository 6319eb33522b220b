"""Of a batch prediction: rows of the dataset as a caller would send them, and answers as lines of the outputs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trainer.bundle import PROBABILITIES_OUTPUT, Bundle, WrongInput
from trainer.data import Columns, is_missing
from trainer.failures import BadData
from trainer.plain import picture, read_rows
from trainer.predicting import ROWS_FILE, PredictSpec
from trainer.protocol import is_optional

MOST_CLASS_COLUMNS = 200  # a table with a column for each of thousands of classes opens nowhere
# text that begins like this is run as a formula by spreadsheets; so are the full-width twins
DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


class Reader:
    """Lines of rows.jsonl, and what the model takes of each."""

    def __init__(self, folder: Path, spec: PredictSpec, bundle: Bundle) -> None:
        self.folder, self.bundle = folder, bundle
        self.inputs = bundle.inputs
        self.columns = {one["name"]: spec.columns.get(one["name"], "") for one in self.inputs}
        self.is_table = is_optional(bundle)

    def lines(self, *, after: int) -> Iterator[dict[str, Any]]:
        """Every line from the one behind `after` on."""
        try:
            with (self.folder / ROWS_FILE).open(encoding="utf-8") as file:
                for line in islice(file, after, None):
                    yield json.loads(line)
        except FileNotFoundError:
            raise BadData(f"{ROWS_FILE} is not in the run folder.") from None

    def value(self, line: dict[str, Any]) -> Any:
        """One row as a caller of an endpoint would send it, or WrongInput with the reason."""
        if "bad" in line:
            raise WrongInput("", str(line["bad"]))
        if "file" in line:
            return picture((self.folder / line["file"]).read_bytes(), "", self.inputs[0]["shape"][1:])
        if not self.is_table:
            return self._text(line["cells"], self.inputs[0]["name"])
        read = {"BYTES": self._word, "FP32": self._number}
        return {one["name"]: read[one["datatype"]](line["cells"], one["name"]) for one in self.inputs}

    def joined(self, values: list[Any]) -> Columns:
        """Values of several rows as the columns the model takes, checked as those of a request are."""
        if isinstance(values[0], np.ndarray):
            return {self.inputs[0]["name"]: np.stack(values)}
        return read_rows(values, [f"/{index}" for index in range(len(values))], self.bundle)

    def named(self, wrong: WrongInput) -> str:
        """The reason, with the column of the dataset that it speaks of."""
        name = wrong.pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        column = self.columns.get(name)
        return f"Column {column!r}: {wrong.detail}" if column else wrong.detail

    def _text(self, cells: dict[str, Any], name: str) -> str:
        text = _as_text(cells.get(self.columns[name]))
        if not text.strip():
            raise WrongInput("", f"Column {self.columns[name]!r} is empty.")
        return text

    def _word(self, cells: dict[str, Any], name: str) -> str | None:
        text = _as_text(cells.get(self.columns[name]))
        return None if is_missing(text) else text.strip()

    def _number(self, cells: dict[str, Any], name: str) -> float | None:
        text = _as_text(cells.get(self.columns[name]))
        if is_missing(text):
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise WrongInput("", f"Column {self.columns[name]!r} holds {text[:40]!r}, which is no number.")
        return number


class Table:
    """How answers are written: the same columns in every line of the CSV, and one object a line beside it."""

    def __init__(self, bundle: Bundle, keep: tuple[str, ...], *, files: bool) -> None:
        self.keep = keep
        self.files = files
        self.classes = bundle.classes if bundle.is_plain and len(bundle.classes) <= MOST_CLASS_COLUMNS else ()
        self.told = (
            ["label", "probability"]
            if bundle.is_plain
            else [name for name in bundle.output_names if name != PROBABILITIES_OUTPUT]
        )

    def csv_head(self) -> str:
        """Row number, what was kept, what is said, and why nothing is said."""
        ours = ["row", *(["file"] if self.files else []), *self.told, "error"]
        kept = [f"input_{name}" if name in ours else name for name in self.keep]
        shares = [f"probability_{name}" for name in self.classes]
        first = 2 if self.files else 1
        return _csv_line([*ours[:first], *kept, *self.told, *shares, "error"])

    def csv_line(self, line: dict[str, Any], said: dict[str, Any] | str) -> str:
        cells: list[Any] = [line["row"]]
        if self.files:
            cells.append(_shown_file(line))
        cells += [_as_text(line.get("cells", {}).get(name)) for name in self.keep]
        if isinstance(said, str):
            return _csv_line([*cells, *[""] * (len(self.told) + len(self.classes)), said])
        cells += [
            json.dumps(said[name], ensure_ascii=False) if isinstance(said[name], list) else said[name]
            for name in self.told
        ]
        cells += [said["probabilities"][name] for name in self.classes]
        return _csv_line([*cells, ""])

    def json_line(self, line: dict[str, Any], said: dict[str, Any] | str) -> str:
        told: dict[str, Any] = {"row": line["row"]}
        if self.files:
            told["file"] = _shown_file(line)
        if self.keep:
            cells = line.get("cells", {})
            told["input"] = {name: cells.get(name) for name in self.keep}
        told |= {"error": said} if isinstance(said, str) else said
        return json.dumps(told, ensure_ascii=False) + "\n"


def _shown_file(line: dict[str, Any]) -> str:
    """Class folder and file, as in the archive that was uploaded."""
    return "/".join(str(line.get("file", "")).split("/")[-2:])


def _as_text(value: Any) -> str:
    """A cell as training read it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a ' in front; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(DANGEROUS) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _csv_line(cells: list[Any]) -> str:
    line = io.StringIO()
    # a cell is quoted for a lone CR or LF only if the end of a line holds that sign, so both stand in it
    csv.writer(line, lineterminator="\r\n").writerow(map(_csv_cell, cells))
    return line.getvalue()
