"""Reading CSV and JSON Lines row by row: good rows come out, bad ones are named with the reason.

Nothing here holds more than one row; a row that never ends is cut off at MAX_LINE and named.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from django.utils.translation import gettext as _

from tenants.errors import Invalid

MAX_CELL = 1024 * 1024  # characters
MAX_LINE = 16 * 1024 * 1024  # characters
MAX_COLUMNS = 1000
DELIMITERS = (",", ";", "\t")
_SAMPLE_BYTES = 256 * 1024

csv.field_size_limit(MAX_CELL)  # for the whole process: nobody else here reads CSV

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Good:
    """A row that can be used. `number` counts rows from 1, the header apart."""

    number: int
    cells: dict[str, Cell]


@dataclass(frozen=True, slots=True)
class Bad:
    number: int
    reason: str


class _TooLong(Exception):
    """A line longer than anything a person would write."""


class Lines:
    """The lines of a file, none longer than MAX_LINE. It can be asked for the next line after it raised."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        file.seek(0)
        self._text = io.TextIOWrapper(io.BufferedReader(_Unclosable(file)), encoding=encoding, newline="")
        self.number = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) < MAX_LINE or line.endswith(("\n", "\r")):
            return line
        while (rest := self._text.readline(MAX_LINE)) and not rest.endswith(("\n", "\r")):
            pass
        raise _TooLong


def read_csv(file: IO[bytes], encoding: str, delimiter: str) -> Iterator[Good | Bad]:
    """The rows below the header."""
    lines = Lines(file, encoding)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    number = 0
    while True:
        first_line = lines.number + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except _TooLong:
            record, wrong = [], _("the line is longer than %(most)s characters") % {"most": MAX_LINE}
        except csv.Error as error:
            record, wrong = [], _csv_reason(str(error))
        else:
            if not record:
                continue  # a blank line
            wrong = ""
        if names is None:
            if wrong:
                _refuse("no_header", _("The header cannot be read: %(why)s."), why=wrong)
            names = header(record)
            continue
        number += 1
        wrong = wrong or _wrong_with(record, names)
        if wrong:
            yield Bad(number, _("line %(line)s: %(why)s") % {"line": first_line, "why": wrong})
        else:
            yield Good(number, dict(zip(names, record, strict=True)))


def read_jsonl(file: IO[bytes], encoding: str) -> Iterator[Good | Bad]:
    """One JSON object a line; values are plain."""
    lines = Lines(file, encoding)
    number = 0
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except _TooLong:
            number += 1
            wrong = _("the line is longer than %(most)s characters") % {"most": MAX_LINE}
            yield Bad(number, _("line %(line)s: %(why)s") % {"line": lines.number, "why": wrong})
            continue
        if not line.strip():
            continue
        number += 1
        row, wrong = _json_row(line)
        if wrong:
            yield Bad(number, _("line %(line)s: %(why)s") % {"line": lines.number, "why": wrong})
        else:
            yield Good(number, row)


def header(record: list[str]) -> list[str]:
    """Column names from the first row, or a refusal that says what to mend."""
    names = [name.strip() for name in record]
    if all(_is_number(name) for name in names):
        _refuse(
            "no_header",
            _("The first row holds only numbers. Put a row with the column names on top."),
        )
    if len(names) > MAX_COLUMNS:
        _refuse("too_many_columns", _("There are more than %(most)s columns."), most=MAX_COLUMNS)
    for place, name in enumerate(names, start=1):
        if not name:
            _refuse("no_header", _("Column %(place)s has no name. Give every column a name."), place=place)
        if "\0" in name or len(name) > 200:
            _refuse("no_header", _("The name of column %(place)s is no plain name."), place=place)
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        _refuse(
            "duplicate_column",
            _("These columns are named more than once: %(names)s. Give each a name of its own."),
            names=", ".join(doubled[:10]),
        )
    return names


def sniff_delimiter(sample: str) -> str:
    """The delimiter that cuts most rows into as many cells as the header."""
    best, best_score = ",", (0.0, 0)
    lines = sample.splitlines(keepends=True)[:200]
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        if not rows or len(rows[0]) < 2:
            continue
        fitting = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        score = (round(fitting, 2), len(rows[0]))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def sample_of(file: IO[bytes], encoding: str) -> str:
    """The beginning as text, up to the last whole line of it."""
    file.seek(0)
    raw = file.read(_SAMPLE_BYTES)
    if len(raw) == _SAMPLE_BYTES and b"\n" in raw:
        raw = raw[: raw.rfind(b"\n") + 1]
    return raw.decode(encoding, errors="replace")


def as_text(value: Cell) -> str:
    """A plain value the way the engine reads it; nothing is the empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _json_row(line: str) -> tuple[dict[str, Cell], str]:
    try:
        row = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_unique)
    except ValueError as error:
        return {}, _("this is not JSON (%(why)s)") % {"why": error}
    except RecursionError:
        return {}, _("this is nested too deep")
    if not isinstance(row, dict):
        return {}, _('a row is a JSON object, such as {"text": "…", "label": "…"}')
    if not row:
        return {}, _("the object is empty")
    for name, value in row.items():
        if not name or name != name.strip() or "\0" in name or len(name) > 200 or not _is_whole(name):
            return {}, _("%(name)s is no plain column name") % {"name": json.dumps(name[:80])}
        if isinstance(value, list | dict):
            return {}, _("“%(name)s” holds a list or an object; only plain values can be learned") % {
                "name": name[:80]
            }
        if isinstance(value, float) and not math.isfinite(value):
            return {}, _("“%(name)s” is too large a number") % {"name": name[:80]}
        if isinstance(value, str) and (wrong := _wrong_cell(name, value)):
            return {}, wrong
    return row, ""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError(_("a name stands twice in the object"))
    return row


def _no_constant(name: str) -> NoReturn:
    raise ValueError(_("%(name)s is no number of JSON") % {"name": name})


def _wrong_with(record: list[str], names: list[str]) -> str:
    if len(record) != len(names):
        return _("%(found)s cells, but the header has %(wanted)s") % {
            "found": len(record),
            "wanted": len(names),
        }
    if not any(cell.strip() for cell in record):
        return _("every cell is empty")
    for name, cell in zip(names, record, strict=True):
        if "\0" in cell or len(cell) > MAX_CELL:
            return _wrong_cell(name, cell)
    return ""


def _wrong_cell(name: str, cell: str) -> str:
    if "\0" in cell:
        return _("“%(name)s” holds a NUL character") % {"name": name[:80]}
    if len(cell) > MAX_CELL:
        return _("“%(name)s” is longer than 1 MiB") % {"name": name[:80]}
    return "" if _is_whole(cell) else _("“%(name)s” holds half a character") % {"name": name[:80]}


def _is_whole(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON may smuggle in one half of a surrogate pair."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_reason(text: str) -> str:
    if "field larger" in text:
        return _("a cell is longer than 1 MiB; a quote may never be closed")
    if "unexpected end of data" in text:
        return _("a quote is opened and never closed")
    if "expected after" in text:
        return _("after a closing quote the cell must end; write a quote inside a cell twice")
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse(code: str, text: str, **words: object) -> NoReturn:
    raise Invalid.at("/file", code, text % words if words else text)


class _Unclosable(io.RawIOBase):
    """Lets a text reader come and go without closing the upload under it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
