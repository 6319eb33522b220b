"""Files nobody needs go: of datasets archived long enough ago, and those that no row names. Rows stay."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.utils import timezone

from console.celery import app
from jobs import storage
from jobs.models import Dataset, DatasetVersion, Job
from jobs.services import cleaning, datasets
from jobs.states import JobStatus
from tenants.models import AuditEntry
from tests.jobs.factories_datasets import CSV, images_zip, make_dataset, stored_files
from tests.jobs.factories_registry import make_finished_job, make_model


def archive(as_ana, dataset: Dataset, *, days_ago: float) -> None:
    datasets.archive_dataset(as_ana, dataset)
    Dataset.objects.filter(pk=dataset.pk).update(archived_at=timezone.now() - timedelta(days=days_ago))


def age(key: str, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(Path(settings.STORAGES["default"]["OPTIONS"]["location"]) / key, (then, then))


def test_files_of_an_archived_dataset_go_after_the_grace_and_rows_stay(as_ana, ana, browser_of):
    version = make_dataset(as_ana, "Cats", images_zip(), "cats.zip")
    kept = make_dataset(as_ana, "Kept")
    page = version.dataset.get_absolute_url()
    archive(as_ana, version.dataset, days_ago=29)
    assert cleaning.delete_archived_files() == 0
    text = browser_of(ana).get(page).content.decode()
    assert "Its files are deleted on" in text
    archive(as_ana, version.dataset, days_ago=31)
    Dataset.objects.filter(pk=version.dataset_id).update(archived_at=timezone.now() - timedelta(days=31))
    assert cleaning.delete_archived_files() == 1
    assert stored_files() == [kept.storage_key]
    gone = version.reload()
    assert gone.files_deleted_at is not None and gone.sha256 == version.sha256
    assert storage.used_bytes(version.tenant) == kept.size_bytes
    assert AuditEntry.objects.get(action="dataset.files_deleted").target_id == version.dataset.public_id
    assert cleaning.delete_archived_files() == 0
    text = browser_of(ana).get(page).content.decode()
    assert "The files were deleted on" in text
    thumbnail = f"{page}/versions/{version.public_id}/thumbnails/0.png"
    assert browser_of(ana).get(thumbnail).status_code == 404


def test_lineage_of_a_deleted_dataset_stays(as_ana, tmp_path):
    version = make_model(as_ana, tmp_path)
    archive(as_ana, version.dataset_version.dataset, days_ago=400)
    cleaning.delete_archived_files()
    assert version.reload().dataset_version.files_deleted_at is not None
    assert all(default_storage.exists(one.storage_key) for one in version.artifacts.all())


def test_data_that_a_job_waits_for_is_not_deleted(as_ana):
    version = make_dataset(as_ana)
    job = make_finished_job(as_ana, version)
    Job.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED)
    make_finished_job(as_ana, version, name="an older one, done")
    archive(as_ana, version.dataset, days_ago=400)
    assert cleaning.delete_archived_files() == 0
    Job.objects.filter(pk=job.pk).update(status=JobStatus.CANCELLED)
    assert cleaning.delete_archived_files() == 1


def test_the_page_says_what_archiving_will_delete_and_when(as_ana, ana, browser_of, settings):
    settings.ARCHIVE_GRACE_DAYS = 7
    page = browser_of(ana).get(make_dataset(as_ana).dataset.get_absolute_url()).content.decode()
    assert "Its files are deleted for good after 7 days" in page


def test_files_that_no_row_names_go_after_a_day(as_ana, tmp_path):
    pictures, table = (
        make_dataset(as_ana, "Cats", images_zip(), "cats.zip"),
        make_dataset(as_ana, content=CSV),
    )
    make_model(as_ana, tmp_path)
    known = stored_files()
    home = f"tenants/{as_ana.tenant.public_id}"
    for name in ("old", "new"):
        storage.put(as_ana.tenant, f"{home}/datasets/{name}/data", [b"lost"])
        storage.put(as_ana.tenant, f"{home}/datasets/{name}/thumbnails", [b"lost"])
    storage.put(as_ana.tenant, f"{home}/models/old/model.onnx", [b"lost"])
    for key in stored_files():
        if "/new/" not in key:
            age(key, 2)
    assert cleaning.sweep_orphans() == 3
    assert stored_files() == sorted([*known, f"{home}/datasets/new/data", f"{home}/datasets/new/thumbnails"])
    assert {pictures.storage_key, table.storage_key} <= set(known)


def test_what_a_crash_left_of_a_deletion_is_swept_too(as_ana, monkeypatch):
    version = make_dataset(as_ana)
    archive(as_ana, version.dataset, days_ago=31)
    age(version.storage_key, 31)

    def crash(key: str) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as broken, pytest.raises(OSError):
        broken.setattr(storage, "delete", crash)
        cleaning.delete_archived_files()
    assert DatasetVersion.objects.get().files_deleted_at is not None
    assert cleaning.sweep_orphans() == 1
    assert stored_files() == []


@pytest.mark.parametrize("task", ["jobs.delete_archived_files", "jobs.sweep_orphans"])
def test_cleaning_is_on_the_timetable(task, db):
    assert task in {one["task"] for one in app.conf.beat_schedule.values()}
    app.tasks[task]()
