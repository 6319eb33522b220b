"""Datasets: kept whole, frozen, numbered, and laid out again for the engine."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import connection

from jobs import storage
from jobs.models import Dataset, DatasetVersion
from jobs.services import datasets
from tenants.errors import Conflict, DiskFull, Forbidden, Hidden, Invalid, QuotaExceeded
from tenants.models import AuditEntry, Tenant
from tests.factories import make_user
from tests.jobs.factories_datasets import CSV, images_zip, make_dataset, png, stored_files, upload, zip_of


def test_an_upload_becomes_a_frozen_version_with_its_checksum(as_ben):
    version = make_dataset(as_ben)
    assert version.number == 1
    assert version.format == "csv"
    assert version.row_count == 40
    assert version.sha256 == hashlib.sha256(CSV).hexdigest()
    assert version.size_bytes == len(CSV)
    assert version.dataset.created_by == as_ben.user
    assert b"".join(storage.open_chunks(version.tenant, version.storage_key)) == CSV


def test_an_upload_is_written_into_the_audit_log(as_ben):
    make_dataset(as_ben)
    actions = AuditEntry.objects.filter(actor_label="ben@example.org").values_list("action", flat=True)
    assert {"dataset.created", "dataset.uploaded"} <= set(actions)


def test_no_row_of_an_upload_can_be_read_from_storage(as_ana):
    make_dataset(as_ana, content=CSV + b"the canary sings in clear,1,yes\n")
    make_dataset(as_ana, "Cats", images_zip(), "cats.zip")
    root = Path(settings.STORAGES["default"]["OPTIONS"]["location"])
    raw = b"".join((root / name).read_bytes() for name in stored_files())
    for canary in (b"canary", b"good thing", b"PNG", b"cat/", b"PK\x03\x04"):
        assert canary not in raw


def test_the_same_bytes_again_name_the_version_they_equal(as_ana):
    version = make_dataset(as_ana)
    datasets.add_version(as_ana, version.dataset, file=upload(CSV + b"more,1,no\n"))
    with pytest.raises(Conflict, match="version 1"):
        datasets.add_version(as_ana, version.dataset, file=upload(CSV))
    assert version.dataset.versions.count() == 2
    assert len(stored_files()) == 2


def test_a_new_version_leaves_the_old_one_as_it_was(as_ana):
    first = make_dataset(as_ana)
    second = datasets.add_version(as_ana, first.dataset, file=upload(CSV + b"more,1,no\n"))
    assert (first.reload().sha256, first.reload().row_count) == (first.sha256, 40)
    assert (second.number, second.row_count) == (2, 41)
    assert first.dataset.latest == second


def test_a_name_is_taken_whatever_its_case_until_the_dataset_is_archived(as_ana):
    version = make_dataset(as_ana, "Reviews")
    with pytest.raises(Invalid) as refused:
        make_dataset(as_ana, "REVIEWS")
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [("/name", "taken")]
    datasets.archive_dataset(as_ana, version.dataset)
    assert make_dataset(as_ana, "reviews").number == 1


@pytest.mark.parametrize(("name", "code"), [("", "required"), ("   ", "required"), ("x" * 121, "too_long")])
def test_a_dataset_needs_a_plain_name(as_ana, name, code):
    with pytest.raises(Invalid) as refused:
        make_dataset(as_ana, name)
    assert refused.value.faults[0].code == code


def test_an_archived_dataset_takes_no_new_version_and_archiving_twice_is_as_good_as_once(as_ana):
    version = make_dataset(as_ana)
    datasets.archive_dataset(as_ana, version.dataset)
    datasets.archive_dataset(as_ana, Dataset.objects.get())
    with pytest.raises(Conflict, match="archived"):
        datasets.add_version(as_ana, Dataset.objects.get(), file=upload(CSV + b"more,1,no\n"))
    assert AuditEntry.objects.filter(action="dataset.archived").count() == 1
    assert len(stored_files()) == 1


def test_a_viewer_may_not_upload_or_archive_and_a_stranger_sees_nothing(as_ana, as_cy, tenant):
    from tenants.http import actor_from_user

    viewer = actor_from_user(make_user("vi@example.org", tenant=tenant, role="viewer"))
    version = make_dataset(as_ana)
    with pytest.raises(Forbidden):
        make_dataset(viewer, "Mine")
    with pytest.raises(Forbidden):
        datasets.archive_dataset(viewer, version.dataset)
    for act in (
        lambda: datasets.add_version(as_cy, version.dataset, file=upload(CSV + b"x,1,no\n")),
        lambda: datasets.archive_dataset(as_cy, version.dataset),
    ):
        with pytest.raises(Hidden):
            act()
    assert len(stored_files()) == 1


@pytest.mark.django_db(transaction=True)
def test_two_uploads_at_once_get_two_numbers(as_ana):
    version = make_dataset(as_ana)
    made, failed = [], []

    def add(row: str) -> None:
        try:
            made.append(datasets.add_version(as_ana, version.dataset, file=upload(CSV + row.encode())).number)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=add, args=(f"row {n},{n},no\n",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(made) == [2, 3, 4, 5]


@pytest.mark.django_db(transaction=True)
def test_the_same_bytes_twice_at_once_are_kept_once(as_ana):
    version = make_dataset(as_ana)
    outcomes = []

    def add() -> None:
        try:
            datasets.add_version(as_ana, version.dataset, file=upload(CSV + b"more,1,no\n"))
            outcomes.append("kept")
        except Conflict:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["kept", "refused", "refused"]
    assert len(stored_files()) == 2


@pytest.mark.django_db(transaction=True)
def test_two_uploads_at_once_cannot_both_take_the_last_room(as_ana, tenant):
    Tenant.objects.update(max_storage_bytes=len(CSV) + 100)
    outcomes = []

    def add(name: str) -> None:
        try:
            make_dataset(as_ana, name)
            outcomes.append("kept")
        except QuotaExceeded:
            outcomes.append("refused")
        finally:
            connection.close()

    as_ana.tenant.refresh_from_db()
    threads = [threading.Thread(target=add, args=(f"Set {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["kept", "refused", "refused"]
    assert len(stored_files()) == 1


class FullStorage(FileSystemStorage):
    """A disk with room for the first bytes only."""

    def _save(self, name: str, content: object) -> str:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_leaves_no_file_and_no_row(as_ana, settings):
    broken = {**settings.STORAGES["default"], "BACKEND": "tests.jobs.test_datasets.FullStorage"}
    settings.STORAGES = {**settings.STORAGES, "default": broken}
    with pytest.raises(DiskFull):
        make_dataset(as_ana)
    assert stored_files() == []
    assert Dataset.objects.count() == DatasetVersion.objects.count() == 0


def test_rows_that_cannot_be_written_take_the_file_back(as_ana, monkeypatch):
    monkeypatch.setattr(DatasetVersion, "save", lambda *_a, **_k: (_ for _ in ()).throw(RuntimeError("gone")))
    with pytest.raises(RuntimeError):
        make_dataset(as_ana)
    assert stored_files() == []
    assert Dataset.objects.count() == 0


def test_a_csv_is_laid_out_clean_and_with_its_good_rows_only(as_ana, tmp_path):
    rows = (
        "\ufefftext ; label\n" + 'a "quoted" row;no\n' + "1;2;3\n" + "".join(f"r{n};yes\n" for n in range(9))
    )
    content = rows.replace('a "quoted" row', '"a ""quoted"" row\nover two lines"')
    version = make_dataset(as_ana, content=content)
    run = tmp_path / "run"
    run.mkdir()
    assert datasets.materialize(version, run) == {"path": "data/table.csv", "format": "csv"}
    with (run / "data" / "table.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["text", "label"]
    assert table[1] == ['a "quoted" row\nover two lines', "no"]
    assert len(table) == 1 + version.row_count == 11
    assert [path.name for path in run.iterdir()] == ["data"]


def test_a_chinese_csv_is_laid_out_as_utf_8(as_ana, tmp_path):
    content = ("文本,标签\n" + "".join(f"好东西{n},好\n坏东西{n},坏\n" for n in range(5))).encode("gb18030")
    version = make_dataset(as_ana, content=content)
    datasets.materialize(version, tmp_path)
    assert (tmp_path / "data" / "table.csv").read_text(encoding="utf-8").startswith("文本,标签\n好东西0,好\n")


def test_json_lines_are_laid_out_with_their_own_types(as_ana, tmp_path):
    lines = [{"text": f"row {n} ≈", "n": n, "ok": n % 2 == 0, "gone": None} for n in range(10)]
    content = "\n".join([*(json.dumps(line) for line in lines), "{broken", ""])
    version = make_dataset(as_ana, content=content, file_name="rows.jsonl")
    assert datasets.materialize(version, tmp_path) == {"path": "data/table.jsonl", "format": "jsonl"}
    written = (tmp_path / "data" / "table.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == lines


def test_images_are_laid_out_in_class_folders_without_the_corrupt_ones(as_ana, tmp_path):
    good = {f"photos/{name}/{n}.png": png((n, 2, 3)) for name in ("猫", "dog") for n in range(5)}
    content = zip_of({**good, "photos/dog/broken.png": png()[:40], "photos/notes.txt": b"hello"})
    version = make_dataset(as_ana, content=content, file_name="photos.zip")
    assert datasets.materialize(version, tmp_path) == {"path": "data/images", "format": "images"}
    files = sorted(str(path.relative_to(tmp_path / "data" / "images")) for path in tmp_path.rglob("*.png"))
    assert files == sorted(path.removeprefix("photos/") for path in good)
    assert (tmp_path / "data" / "images" / "dog" / "3.png").read_bytes() == good["photos/dog/3.png"]


def test_the_engine_reads_what_was_laid_out(as_ana, tmp_path):
    from trainer.contract import DataSpec
    from trainer.data import read_table
    from trainer.recipes import image

    where = datasets.materialize(make_dataset(as_ana), tmp_path / "a")
    table, _places = read_table(tmp_path / "a", DataSpec(**where, label="label"))
    assert (sorted(table), len(table["label"])) == (["label", "stars", "text"], 40)
    pictures = make_dataset(as_ana, "Cats", images_zip(), "cats.zip")
    where = datasets.materialize(pictures, tmp_path / "b")
    assert sorted(set(image.read(tmp_path / "b", DataSpec(**where)).labels)) == ["cat", "dog"]


def test_thumbnails_are_made_by_us_and_a_number_too_many_is_hidden(as_ana):
    version = make_dataset(as_ana, "Cats", images_zip(per_class=2), "cats.zip")
    assert [row["class"] for row in version.profile["preview"]] == ["cat", "cat", "dog", "dog"]
    assert datasets.thumbnail(version, 3).startswith(b"\x89PNG")
    with pytest.raises(Hidden):
        datasets.thumbnail(version, 4)
    with pytest.raises(Hidden):
        datasets.thumbnail(make_dataset(as_ana), 0)
