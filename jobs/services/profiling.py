"""Look at an upload before it is kept: what it is, and which of its rows a job could use."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn

from django.conf import settings
from django.utils.translation import gettext as _
from PIL import Image

from jobs import archives, tables
from jobs.models.datasets import DatasetFormat
from jobs.profiles import TableProfile, shown
from jobs.storage import file_chunks
from tenants.errors import Fault, Invalid, TooLarge

PREVIEW_ROWS = 20
MOST_PROBLEMS = 100
MAX_BAD_SHARE = 0.2
THUMBNAIL_SIDE = 96

_MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"PAR1", "Parquet"),
    (b"%PDF", "PDF"),
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"Rar!", "RAR"),
    (b"7z\xbc\xaf", "7-Zip"),
    (b"\xd0\xcf\x11\xe0", "Microsoft Office"),
    (b"\x93NUMPY", "NumPy"),
    (b"SQLite format 3", "SQLite"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """An upload that may be kept."""

    format: DatasetFormat
    sha256: str
    size_bytes: int
    row_count: int
    profile: dict[str, Any]
    thumbnails: list[bytes] = field(default_factory=list)  # PNG, in the order of the preview


def inspect(file: IO[bytes], name: str) -> Inspected:
    """Read the whole upload once or twice, in pieces. Raises Invalid or TooLarge with pointer /file."""
    digest, size, encoding = _measure(file)
    if not size:
        _refuse("empty", _("The file is empty."))
    file.seek(0)
    head = file.read(64 * 1024)
    kind = _kind_of(head, name.lower())
    if kind is DatasetFormat.IMAGES:
        row_count, profile, thumbnails = _inspect_images(file)
    else:
        if encoding is None:
            encoding = _second_guess(file)
        row_count, profile = _inspect_table(file, kind, encoding)
        thumbnails = []
    return Inspected(
        format=kind,
        sha256=digest,
        size_bytes=size,
        row_count=row_count,
        profile=profile,
        thumbnails=thumbnails,
    )


def good_rows(file: IO[bytes], format: str, source: dict[str, str]) -> Iterator[dict[str, tables.Cell]]:
    """The rows of a stored table that passed when it was uploaded, in order."""
    for row in every_row(file, format, source):
        if isinstance(row, tables.Good):
            yield row.cells


def every_row(file: IO[bytes], format: str, source: dict[str, str]) -> Iterator[tables.Good | tables.Bad]:
    """All rows of a stored table in order, with their numbers: the bad ones with the reason."""
    return _rows(file, DatasetFormat(format), source)


def _measure(file: IO[bytes]) -> tuple[str, int, str | None]:
    """Checksum, size and, if it is UTF-8 all through, the encoding."""
    digest, size = hashlib.sha256(), 0
    decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
    for chunk in file_chunks(file):
        digest.update(chunk)
        size += len(chunk)
        if size > settings.MAX_UPLOAD_BYTES:
            raise too_large()
        if decoder is not None and not _decodes(decoder, chunk):
            decoder = None
    if decoder is not None and not _decodes(decoder, b"", final=True):
        decoder = None
    return digest.hexdigest(), size, None if decoder is None else "utf-8-sig"


def _second_guess(file: IO[bytes]) -> str:
    """Not UTF-8: GB 18030 reads every older Chinese encoding. Anything else is refused, not guessed."""
    decoder = codecs.getincrementaldecoder("gb18030")()
    if all(_decodes(decoder, chunk) for chunk in file_chunks(file)) and _decodes(decoder, b"", final=True):
        return "gb18030"
    _refuse(
        "bad_encoding", _("The text is neither UTF-8 nor GB 18030. Save it as UTF-8 and upload it again.")
    )


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def _kind_of(head: bytes, name: str) -> DatasetFormat:
    """Told by the content; the name decides only where both readings are possible."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return DatasetFormat.IMAGES
    if name.endswith(".zip"):
        _refuse("corrupt_zip", _("This is named .zip but is no zip. Make it again and upload it again."))
    for magic, found in _MAGICS:
        if head.startswith(magic):
            _refuse_kind(found)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _refuse("bad_encoding", _("The text is UTF-16. Save it as UTF-8 and upload it again."))
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        _refuse("empty", _("The file holds nothing but blanks."))
    # a NUL here and there is a bad cell; many of them are no text at all
    if head.count(b"\0") > max(8, len(head) // 100):
        _refuse_kind("binary")
    if start.startswith(b"[") and not name.endswith((".csv", ".tsv", ".txt")):
        _refuse(
            "json_array",
            _("This is one JSON array. Write one object a line instead (JSON Lines), without brackets."),
        )
    if start.startswith(b"{") and (
        _is_object(start.split(b"\n", 1)[0]) or not name.endswith((".csv", ".tsv"))
    ):
        return DatasetFormat.JSONL
    return DatasetFormat.JSONL if name.endswith((".jsonl", ".ndjson")) else DatasetFormat.CSV


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _inspect_table(file: IO[bytes], kind: DatasetFormat, encoding: str) -> tuple[int, dict[str, Any]]:
    source = {"encoding": encoding}
    if kind is DatasetFormat.CSV:
        source["delimiter"] = tables.sniff_delimiter(tables.sample_of(file, encoding))
    table, problems = TableProfile(), _Problems()
    preview: list[dict[str, str]] = []
    for row in _rows(file, kind, source):
        if isinstance(row, tables.Bad):
            problems.add(row.number, row.reason)
            continue
        problems.good += 1
        cells = {name: tables.as_text(value) for name, value in row.cells.items()}
        if len(preview) < PREVIEW_ROWS:
            preview.append({name: shown(cell) for name, cell in cells.items()})
        table.add(cells, row.number)
        if kind is DatasetFormat.JSONL and len(table) > tables.MAX_COLUMNS:
            _refuse(
                "too_many_columns", _("There are more than %(most)s columns.") % {"most": tables.MAX_COLUMNS}
            )
    problems.judge()
    columns = table.columns()
    if len(columns) == 1 and columns[0]["type"] != "text":  # texts alone are what a language model learns
        _refuse(
            "one_column",
            _("There is only the column “%(name)s”. Two are needed: something to learn from, and its label.")
            % {"name": columns[0]["name"][:80]},
        )
    if not any(column["distinct"] is None or column["distinct"] > 1 for column in columns):
        _refuse("one_class", _("Every row is the same: no column holds two different values to tell apart."))
    return problems.good, {"columns": columns, "preview": preview, **problems.described(), "source": source}


def _rows(file: IO[bytes], kind: DatasetFormat, source: dict[str, str]) -> Iterator[tables.Good | tables.Bad]:
    if kind is DatasetFormat.JSONL:
        return tables.read_jsonl(file, source["encoding"])
    return tables.read_csv(file, source["encoding"], source["delimiter"])


def _inspect_images(file: IO[bytes]) -> tuple[int, dict[str, Any], list[bytes]]:
    with archives.open_archive(file) as archive:
        entries, ignored = archives.images(archive)
        if not entries:
            _refuse(
                "empty",
                _("The zip holds no image. Put PNG, JPEG, BMP, GIF or WebP files into one folder a class."),
            )
        shown_first = _one_of_each(entry for entry in entries if not entry.wrong)
        classes: Counter[str] = Counter()
        sizes: Counter[archives.Picture] = Counter()
        previews: list[tuple[dict[str, Any], bytes]] = []
        problems, left_out = _Problems(), []
        for entry in entries:
            side = THUMBNAIL_SIDE if entry.number in shown_first else 0
            try:
                if entry.wrong:
                    raise archives.BadImage(entry.wrong)
                picture, small = archives.look_at(archive, entry, side)
            except archives.BadImage as error:
                problems.add(entry.number, f"{shown(entry.path)}: {error}")
                left_out.append(entry.number)
                continue
            problems.good += 1
            classes[entry.folder] += 1
            sizes[picture] += 1
            if small is not None:
                row = {
                    "path": entry.path,
                    "class": entry.folder,
                    "width": picture.width,
                    "height": picture.height,
                }
                previews.append((row, _png(small)))
    problems.judge()
    _judge_classes(classes)
    usual = sizes.most_common(1)[0][0]
    sides = {(size.width, size.height) for size in sizes}
    image = {
        "width": usual.width,
        "height": usual.height,
        "channels": max(size.channels for size in sizes),
        "sizes": len(sides),
    }
    profile = {
        "columns": [],
        "classes": dict(sorted(classes.items())),
        "image": image,
        "preview": [row for row, _png_bytes in previews],
        **problems.described(),
        "ignored": ignored,
        "left_out": left_out,
    }
    return problems.good, profile, [thumbnail for _row, thumbnail in previews]


def _judge_classes(classes: Counter[str]) -> None:
    if len(classes) == 1:
        _refuse(
            "one_class",
            _("All images lie in one folder, “%(name)s”. Two classes are needed: one folder for each.")
            % {"name": next(iter(classes))},
        )
    if len(classes) > archives.MAX_CLASSES:
        _refuse(
            "too_many_classes", _("There are more than %(most)s classes.") % {"most": archives.MAX_CLASSES}
        )


def _one_of_each(entries: Iterable[archives.Entry]) -> set[int]:
    """Which images to show: classes in turn, so that the first page shows them all."""
    by_class: dict[str, list[int]] = {}
    for entry in entries:
        numbers = by_class.setdefault(entry.folder, [])
        if len(numbers) < PREVIEW_ROWS:
            numbers.append(entry.number)
    chosen: list[int] = []
    for turn in range(PREVIEW_ROWS):
        chosen += [numbers[turn] for numbers in by_class.values() if turn < len(numbers)]
        if len(chosen) >= PREVIEW_ROWS:
            break
    return set(chosen[:PREVIEW_ROWS])


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class _Problems:
    """Counts good and bad rows, keeps the first of the bad ones, and says when it is too much."""

    def __init__(self) -> None:
        self.good = self.bad = 0
        self.first: list[dict[str, Any]] = []

    def add(self, row: int, reason: str) -> None:
        self.bad += 1
        if len(self.first) < MOST_PROBLEMS:
            self.first.append({"row": row, "reason": reason})

    def described(self) -> dict[str, Any]:
        return {"problems": self.first, "problem_count": self.bad}

    def judge(self) -> None:
        if not self.good and not self.bad:
            _refuse("empty", _("There is a header but no row below it."))
        if self.good and self.bad <= MAX_BAD_SHARE * (self.good + self.bad):
            return
        if self.good:
            code = "too_many_bad_rows"
            text = _("%(bad)s of %(all)s rows cannot be used; at most a fifth may be bad.")
        else:
            code, text = "no_good_row", _("None of the %(all)s rows can be used.")
        text %= {"bad": self.bad, "all": self.good + self.bad}
        named = [_("Row %(row)s: %(reason)s.") % one for one in self.first[:5]]
        detail = " ".join([text, *named])
        rows = [Fault("/file", "bad_row", _("Row %(row)s: %(reason)s.") % one) for one in self.first[:20]]
        raise Invalid(detail, faults=[Fault("/file", code, detail), *rows])


def too_large() -> TooLarge:
    """The refusal of an upload beyond the cap, wherever it is noticed."""
    text = _("The file is larger than the %(most)s MiB that may be uploaded at once.")
    text %= {"most": f"{settings.MAX_UPLOAD_BYTES / 1024**2:g}"}
    return TooLarge(text, faults=[Fault("/file", "too_large", text)])


def _refuse_kind(found: str) -> NoReturn:
    _refuse(
        "unknown_format",
        _("This looks like a %(found)s file. Upload CSV, JSON Lines, or a zip of images in class folders.")
        % {"found": found},
    )


def _refuse(code: str, text: str) -> NoReturn:
    raise Invalid.at("/file", code, text)


def thumbnails_zip(thumbnails: list[bytes]) -> bytes:
    """The preview images as one small file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number, png in enumerate(thumbnails):
            archive.writestr(f"{number}.png", png)
    return out.getvalue()
