"""Files of tenants at rest: encrypted, streamed in 1 MiB pieces, all or nothing.

Keys look like `tenants/<tenant>/datasets/<version>/data`. The key is the encryption context as well, so
a file moved to another place or tenant does not open.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db.models import Sum

from jobs.models import Artifact, DatasetVersion, JobFile
from tenants import crypto, quotas
from tenants.errors import DiskFull
from tenants.models import Tenant
from tenants.services.secrets import data_key

CHUNK_BYTES = crypto.CHUNK_BYTES
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What was stored, measured on the plain bytes."""

    size_bytes: int
    sha256: str


def put(tenant: Tenant, key: str, chunks: Iterable[bytes]) -> Stored:
    """Encrypt and store a stream under a new key; on any failure nothing of it stays."""
    if default_storage.exists(key):
        raise FileExistsError(f"{key} is taken: stored files are never overwritten.")
    measured = _Measured(chunks)
    sealed = crypto.seal_stream(data_key(tenant), measured, context=key)
    try:
        with naming_full_disk():
            name = default_storage.save(key, _Stream(sealed, key))
    except BaseException:
        delete(key)
        raise
    if name != key:
        # somebody took the key since we looked; the storage then made up another name
        default_storage.delete(name)
        raise FileExistsError(f"{key} is taken: stored files are never overwritten.")
    return Stored(size_bytes=measured.size_bytes, sha256=measured.digest.hexdigest())


def open_chunks(tenant: Tenant, key: str) -> Iterator[bytes]:
    """The plain bytes in pieces. The key of the tenant is read now; the file as the pieces are taken."""
    return _opened(data_key(tenant), key)


def fetch_to(tenant: Tenant, key: str, path: Path) -> None:
    """Write the plain bytes to a file only its owner may read; on any failure the file is gone."""
    try:
        with naming_full_disk(), private_file(path) as target:
            for chunk in open_chunks(tenant, key):
                target.write(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def delete(key: str) -> None:
    """Remove a file and the folder that was its own, if it is empty. Twice is as good as once."""
    default_storage.delete(key)
    with suppress(OSError):
        default_storage.delete(key.rpartition("/")[0])


def file_chunks(file: IO[bytes] | File) -> Iterator[bytes]:
    """A file from its beginning, in pieces."""
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def used_bytes(tenant: Tenant) -> int:
    """What the tenant's datasets, models and files of jobs take, in plain bytes."""
    kept = DatasetVersion.objects.filter(tenant=tenant, files_deleted_at=None)
    datasets = kept.aggregate(sum=Sum("size_bytes"))["sum"] or 0
    there = Artifact.objects.filter(tenant=tenant, version__files_deleted_at=None)
    files = there.aggregate(sum=Sum("size_bytes"))["sum"] or 0
    made = JobFile.objects.filter(tenant=tenant).aggregate(sum=Sum("size_bytes"))["sum"] or 0
    return int(datasets + files + made)


def ensure_room(tenant: Tenant, size_bytes: int, *, lock: bool = False) -> None:
    """Let so many bytes more pass, or raise QuotaExceeded. With `lock`, until the transaction ends nobody
    else of this tenant passes, so that two uploads cannot both take the last room."""
    if lock:
        tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    quotas.ensure_within(tenant, what="storage_bytes", used=used_bytes(tenant), wanted=size_bytes)


@contextmanager
def naming_full_disk() -> Iterator[None]:
    """A full disk gets its name."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull from error
        raise


def private_file(path: Path) -> IO[bytes]:
    """A new file, readable by its owner alone from the first moment on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    return path.open("wb")


def _opened(key_bytes: bytes, key: str) -> Iterator[bytes]:
    with default_storage.open(key, "rb") as file:
        pieces = iter(lambda: file.read(CHUNK_BYTES), b"")
        yield from crypto.unseal_stream(key_bytes, pieces, context=key)


class _Measured:
    """Counts and hashes what passes through."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = chunks
        self.size_bytes = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.size_bytes += len(chunk)
            self.digest.update(chunk)
            yield chunk


class _Stream(File):
    """A stream as the file that a Django storage wants: folders take `chunks()`, object stores `read()`."""

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        super().__init__(io.BytesIO(), name)  # never read; Django only asks whether it is closed
        self._pieces = pieces
        self._rest = b""

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        return self._pieces

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation("A stream has no position.")

    def seek(self, *_args: Any) -> int:
        raise io.UnsupportedOperation("A stream cannot be rewound.")
