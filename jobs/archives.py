"""Zips of images in class folders, from people we do not know: looked at before anything is unpacked."""

from __future__ import annotations

import io
import re
import stat
import struct
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from django.conf import settings
from django.utils.translation import gettext as _
from PIL import Image, UnidentifiedImageError

from tenants.errors import Invalid

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MAX_ENTRIES = 200_000
MAX_DIRECTORY_BYTES = 32 * 1024 * 1024  # the list of contents, which zipfile reads in one piece
MAX_RATIO = 200
RATIO_FROM_BYTES = 16 * 1024 * 1024  # small archives may shrink as much as they like
MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 40_000_000
MAX_CLASSES = 1000
_DRIVE = re.compile(r"^[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENCRYPTED = 0x1
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OverflowError)
# what Pillow's decoders were seen to raise on damaged files
_BROKEN_IMAGE = (OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, struct.error, zlib.error)
_UTF8_NAMES = 0x800


@dataclass(frozen=True, slots=True)
class Entry:
    """One image file of a zip. `wrong` says why it cannot be used."""

    number: int  # place among the images of the archive, from 1
    path: str  # as in the archive
    folder: str  # the class
    name: str
    info: zipfile.ZipInfo
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """What one image turned out to be."""

    width: int
    height: int
    channels: int


@contextmanager
def open_archive(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """A zip whose list of contents can be read, or a refusal."""
    file.seek(0)
    with naming_corrupt_zip():
        archive = zipfile.ZipFile(_Bounded(file))
    with archive:
        yield archive


@contextmanager
def naming_corrupt_zip(path: str = "") -> Iterator[None]:
    """Whatever zipfile says of a broken archive becomes one named error."""
    try:
        yield
    except _BROKEN_ZIP as error:
        where = _(" at “%(path)s”") % {"path": path} if path else ""
        _refuse(
            "corrupt_zip",
            _("The zip is damaged%(where)s (%(why)s). Make it again and upload it again."),
            where=where,
            why=error,
        )


def images(archive: zipfile.ZipFile) -> tuple[list[Entry], int]:
    """Every image of a safe archive, and how many other files were left aside. Refuses an unsafe one."""
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        _refuse("too_many_entries", _("The zip holds more than %(most)s files."), most=f"{MAX_ENTRIES:,}")
    _refuse_bomb(infos)
    found: list[tuple[zipfile.ZipInfo, str]] = []
    seen: set[str] = set()
    ignored = 0
    for info in infos:
        path = _safe_path(info)
        key = unicodedata.normalize("NFC", path)
        if key in seen:
            _refuse("duplicate_name", _("“%(path)s” is in the zip twice."), path=path)
        seen.add(key)
        if info.is_dir() or path.endswith("/"):
            continue
        if path == "[Content_Types].xml":
            _refuse(
                "unknown_format",
                _("This is an office document. Save the table as CSV and upload that."),
            )
        parts = path.split("/")
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if hidden or PurePosixPath(parts[-1]).suffix.lower() not in SUFFIXES:
            ignored += 0 if hidden else 1
            continue
        found.append((info, path))
    return _laid_out(found), ignored


def look_at(archive: zipfile.ZipFile, entry: Entry, thumbnail: int = 0) -> tuple[Picture, Image.Image | None]:
    """Decode one image completely. Raises BadImage with the reason if it is none."""
    with read_entry(archive, entry) as file, naming_corrupt_zip(entry.path):
        raw = io.BytesIO(file.read())  # to the end, so that zipfile compares the checksum
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we set a stricter limit
        try:
            return _decode(raw, thumbnail)
        except UnidentifiedImageError:
            raise BadImage(_("this is no image that can be read")) from None
        except Image.DecompressionBombError:
            raise BadImage(_("it has far too many pixels")) from None
        except BadImage:
            raise
        except _BROKEN_IMAGE as error:
            raise BadImage(_("the image is damaged (%(why)s)") % {"why": str(error)[:120]}) from None


def _decode(raw: IO[bytes], thumbnail: int) -> tuple[Picture, Image.Image | None]:
    with Image.open(raw, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(_("it has more than %(most)s million pixels") % {"most": MAX_PIXELS // 10**6})
        image.load()
        grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
        picture = Picture(image.width, image.height, 1 if grey else 3)
        if not thumbnail:
            return picture, None
        small = image.convert("RGBA" if image.mode in ("LA", "PA", "P", "RGBA") else "RGB")
        small.thumbnail((thumbnail, thumbnail))
        return picture, small


class BadImage(ValueError):
    """One image that cannot be used."""


@contextmanager
def read_entry(archive: zipfile.ZipFile, entry: Entry) -> Iterator[IO[bytes]]:
    """The bytes of one image. zipfile gives no more than the size it declares and checks its sum."""
    if entry.info.file_size > MAX_IMAGE_BYTES:
        raise BadImage(_("the file is larger than %(most)s MiB") % {"most": MAX_IMAGE_BYTES // 1024**2})
    with naming_corrupt_zip(entry.path):
        file = archive.open(entry.info)
    with file:
        yield file


def unpack(archive: zipfile.ZipFile, folder: Path, leave_out: frozenset[int]) -> int:
    """Write the good images to folder/<class>/<file>; returns how many."""
    written = 0
    for entry in images(archive)[0]:
        if entry.wrong or entry.number in leave_out:
            continue
        target = folder / entry.folder / entry.name
        # images() made sure of it; looked at once more where it would hurt
        if target.resolve().parent.parent != folder.resolve():
            _refuse("path_escapes", _("“%(path)s” points outside the archive."), path=entry.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with read_entry(archive, entry) as source, target.open("xb") as out, naming_corrupt_zip(entry.path):
            while chunk := source.read(1024 * 1024):
                out.write(chunk)
        written += 1
    return written


def _refuse_bomb(infos: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(info.file_size for info in infos)
    packed = sum(info.compress_size for info in infos)
    if unpacked > settings.MAX_UNPACKED_BYTES:
        _refuse(
            "zip_bomb",
            _("Unpacked, this zip takes %(size)s MiB; %(most)s MiB are allowed."),
            size=unpacked // 1024**2,
            most=settings.MAX_UNPACKED_BYTES // 1024**2,
        )
    if unpacked > RATIO_FROM_BYTES and unpacked > MAX_RATIO * max(1, packed):
        _refuse(
            "zip_bomb",
            _("This zip unpacks to %(ratio)s times its size, which images never do."),
            ratio=unpacked // max(1, packed),
        )


def _safe_path(info: zipfile.ZipInfo) -> str:
    path = _name_of(info)
    if info.flag_bits & _ENCRYPTED:
        _refuse("encrypted_zip", _("“%(path)s” is encrypted. Upload a zip without a password."), path=path)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        _refuse("symlink", _("“%(path)s” is a link or device, no file. Zip the files themselves."), path=path)
    parts = path.rstrip("/").split("/")
    if (
        path.startswith("/")
        or "\\" in path
        or _DRIVE.match(path)
        or _CONTROL.search(path)
        or any(part in ("", ".", "..") for part in parts)
    ):
        _refuse("path_escapes", _("“%(path)s” points outside the archive. Zip a plain folder."), path=path)
    return path


def _name_of(info: zipfile.ZipInfo) -> str:
    """The name as it was meant: without the UTF-8 mark many machines still write UTF-8, or GBK."""
    name = info.orig_filename
    if info.flag_bits & _UTF8_NAMES:
        return name
    raw = name.encode("cp437", errors="replace")
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name


def _laid_out(found: list[tuple[zipfile.ZipInfo, str]]) -> list[Entry]:
    """Class and file of every image; one folder around everything is taken off."""
    tops = {path.split("/")[0] for _info, path in found}
    around = len(tops) == 1 and all(path.count("/") >= 2 for _info, path in found)
    entries = []
    for number, (info, path) in enumerate(found, start=1):
        parts = path.split("/")[1:] if around else path.split("/")
        wrong = ""
        if len(parts) == 1:
            wrong = _("it lies in no folder; the folder's name is the class")
        elif len(parts) > 2:
            wrong = _("it lies too deep; images belong into <class>/<file>")
        elif any(len(part.encode("utf-8", "surrogatepass")) > 200 for part in parts):
            wrong = _("its name is too long")
        entries.append(Entry(number, path, parts[0], parts[-1], info, wrong))
    return entries


def _refuse(code: str, text: str, **words: object) -> NoReturn:
    raise Invalid.at("/file", code, text % words if words else text)


class _Bounded:
    """A file that does not hand zipfile a list of contents of any size."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            _refuse("too_many_entries", _("The zip holds more than %(most)s files."), most=f"{MAX_ENTRIES:,}")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
