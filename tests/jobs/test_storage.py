"""Files at rest: encrypted, streamed, all or nothing."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import default_storage

from jobs import storage
from tenants.crypto import Sealed
from tenants.errors import DiskFull, QuotaExceeded
from tests.factories import make_tenant
from tests.jobs.factories_datasets import make_dataset, stored_files

CANARY = b"the canary sings in clear"
MIB = 1024 * 1024


def test_what_is_put_comes_back_the_same(tenant):
    plain = bytes(range(256)) * 10_000  # 2.5 MB: three chunks
    stored = storage.put(tenant, "tenants/x/a", iter([plain[:7], plain[7:]]))
    assert b"".join(storage.open_chunks(tenant, "tenants/x/a")) == plain
    assert (stored.size_bytes, stored.sha256) == (len(plain), hashlib.sha256(plain).hexdigest())


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_every_size_round_the_chunk_border_survives(tenant, size):
    storage.put(tenant, "tenants/x/a", iter([b"x" * size]))
    assert sum(len(chunk) for chunk in storage.open_chunks(tenant, "tenants/x/a")) == size


def test_nothing_readable_lies_in_storage(tenant):
    storage.put(tenant, "tenants/x/a", iter([CANARY * 1000]))
    (name,) = stored_files()
    raw = (Path(settings.STORAGES["default"]["OPTIONS"]["location"]) / name).read_bytes()
    assert CANARY not in raw
    assert b"canary" not in raw


def test_stored_files_belong_to_their_owner_alone(tenant):
    storage.put(tenant, "tenants/x/a", iter([b"x"]))
    assert Path(default_storage.path("tenants/x/a")).stat().st_mode & 0o777 == 0o600


def test_another_tenant_cannot_open_a_file(tenant):
    storage.put(tenant, "tenants/x/a", iter([CANARY]))
    with pytest.raises(Sealed):
        list(storage.open_chunks(make_tenant("Other"), "tenants/x/a"))


def test_a_file_moved_to_another_key_does_not_open(tenant):
    storage.put(tenant, "tenants/x/a", iter([CANARY]))
    Path(default_storage.path("tenants/x/a")).rename(default_storage.path("tenants/x/b"))
    with pytest.raises(Sealed):
        list(storage.open_chunks(tenant, "tenants/x/b"))


def test_a_file_cut_short_does_not_open(tenant):
    storage.put(tenant, "tenants/x/a", iter([b"x" * 3 * MIB]))
    path = Path(default_storage.path("tenants/x/a"))
    path.write_bytes(path.read_bytes()[: 2 * (MIB + 16) + 11])
    with pytest.raises(Sealed):
        list(storage.open_chunks(tenant, "tenants/x/a"))


def test_a_stored_file_is_never_overwritten(tenant):
    storage.put(tenant, "tenants/x/a", iter([b"first"]))
    with pytest.raises(FileExistsError):
        storage.put(tenant, "tenants/x/a", iter([b"second"]))
    assert b"".join(storage.open_chunks(tenant, "tenants/x/a")) == b"first"


def failing(error: BaseException) -> Iterator[bytes]:
    yield b"x" * 2 * MIB
    raise error


@pytest.mark.parametrize("error", [ConnectionError("gone"), KeyboardInterrupt()])
def test_a_stream_that_breaks_leaves_nothing(tenant, error):
    with pytest.raises(type(error)):
        storage.put(tenant, "tenants/x/a", failing(error))
    assert stored_files() == []


def test_a_full_disk_has_a_name_and_leaves_nothing(tenant):
    with pytest.raises(DiskFull):
        storage.put(tenant, "tenants/x/a", failing(OSError(errno.ENOSPC, "No space left on device")))
    assert stored_files() == []


def test_a_file_fetched_in_clear_is_private_and_whole_or_absent(tenant, tmp_path):
    storage.put(tenant, "tenants/x/a", iter([CANARY]))
    storage.fetch_to(tenant, "tenants/x/a", tmp_path / "run" / "a")
    assert (tmp_path / "run" / "a").read_bytes() == CANARY
    assert (tmp_path / "run" / "a").stat().st_mode & 0o777 == 0o600
    Path(default_storage.path("tenants/x/a")).write_bytes(b"TAU1 nonsense that is long enough")
    with pytest.raises(Sealed):
        storage.fetch_to(tenant, "tenants/x/a", tmp_path / "run" / "a")
    assert not (tmp_path / "run" / "a").exists()


def test_deleting_twice_is_as_good_as_once(tenant):
    storage.put(tenant, "tenants/x/own/a", iter([b"x"]))
    storage.delete("tenants/x/own/a")
    storage.delete("tenants/x/own/a")
    assert stored_files() == []
    assert not default_storage.exists("tenants/x/own")


def test_an_object_store_reads_the_same_stream_in_its_own_pieces(tenant):
    stream = storage._Stream(iter([b"abc", b"defg", b"h"]), "x")
    assert [stream.read(2), stream.read(4), stream.read(), stream.read(1)] == [b"ab", b"cdef", b"gh", b""]


def test_used_bytes_are_what_was_uploaded(tenant, as_ana):
    version = make_dataset(as_ana)
    assert storage.used_bytes(tenant) == version.size_bytes > 0


def test_the_quota_of_storage_holds(tenant, as_ana):
    tenant.max_storage_bytes = make_dataset(as_ana).size_bytes + 10
    tenant.save()
    with pytest.raises(QuotaExceeded):
        make_dataset(as_ana, "Second")
    assert len(stored_files()) == 1
