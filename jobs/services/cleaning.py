"""Files that nobody needs any more: of what was archived long enough ago, and those that no row names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from jobs import storage
from jobs.models import Artifact, Dataset, DatasetVersion, JobFile, Model, ModelVersion
from jobs.services.datasets import thumbnails_key
from jobs.states import JOB_ENDED, JobStatus
from tenants import audit
from tenants.actor import SYSTEM

log = logging.getLogger(__name__)

ORPHAN_AGE = timedelta(days=1)  # an upload under way has its file before its row
_BATCH = 500
_HOME = "tenants"


def deleted_on(archived_at: datetime | None) -> datetime | None:
    """When the files of what was archived then go, or went at the earliest; None while it is in use."""
    return None if archived_at is None else archived_at + timedelta(days=settings.ARCHIVE_GRACE_DAYS)


def delete_archived_files() -> int:
    """Delete the files of what was archived before the grace; rows and checksums stay. Returns how many."""
    limit = timezone.now() - timedelta(days=settings.ARCHIVE_GRACE_DAYS)
    return _delete_data(limit) + _delete_models(limit)


def _delete_data(limit: datetime) -> int:
    due = DatasetVersion.objects.filter(dataset__archived_at__lt=limit, files_deleted_at=None)
    # a job that waits or runs was promised this data
    due = due.exclude(jobs__status__in=set(JobStatus) - JOB_ENDED)
    count = 0
    for version in due.select_related("dataset", "tenant").order_by("pk")[:_BATCH]:
        # the row first: should the files outlive a crash here, they are orphans and go as such
        with transaction.atomic():
            # the lock of what somebody may be restoring this very moment
            dataset = Dataset.objects.select_for_update(of=("self",)).get(pk=version.dataset_id)
            if dataset.archived_at is None or dataset.archived_at >= limit:
                continue
            rows = DatasetVersion.objects.filter(pk=version.pk, files_deleted_at=None)
            if not rows.update(files_deleted_at=timezone.now()):
                continue
            audit.record(
                SYSTEM,
                "dataset.files_deleted",
                version.dataset,
                tenant=version.tenant,
                version=version.number,
            )
        storage.delete(version.storage_key)
        storage.delete(thumbnails_key(version))
        count += 1
    return count


def _delete_models(limit: datetime) -> int:
    shelved = Q(archived_at__lt=limit) | Q(model__archived_at__lt=limit)
    due = ModelVersion.objects.filter(shelved, files_deleted_at=None)
    # a prediction that waits or runs was promised this model
    due = due.exclude(predictions__status__in=set(JobStatus) - JOB_ENDED)
    count = 0
    for version in due.select_related("tenant").defer("interface", "manifest").order_by("pk")[:_BATCH]:
        with transaction.atomic():
            model = Model.objects.select_for_update(of=("self",)).get(pk=version.model_id)
            # read again under the lock: it may have been restored in the meantime
            rows = ModelVersion.objects.filter(shelved, pk=version.pk, files_deleted_at=None)
            if not rows.update(files_deleted_at=timezone.now()):
                continue
            audit.record(
                SYSTEM,
                "model.files_deleted",
                model,
                tenant=version.tenant,
                version=version.number,
                variant=version.variant,
            )
        for key in version.artifacts.values_list("storage_key", flat=True):
            storage.delete(key)
        count += 1
    return count


def sweep_orphans(*, older_than: timedelta = ORPHAN_AGE) -> int:
    """Delete stored files that no row names and that are older than a day; returns how many."""
    limit = timezone.now() - older_than
    count, waiting = 0, []
    for key in _stored(_HOME):
        waiting.append(key)
        if len(waiting) >= _BATCH:
            count += _sweep(waiting, limit)
            waiting = []
    return count + _sweep(waiting, limit)


def _sweep(keys: list[str], limit: datetime) -> int:
    count = 0
    for key in sorted(set(keys) - _named(keys)):
        try:
            if default_storage.get_modified_time(key) >= limit:
                continue
        except FileNotFoundError:
            continue  # somebody else deleted it in the meantime
        storage.delete(key)
        log.warning("deleted a file that no row names", extra={"key": key})
        count += 1
    return count


def _named(keys: list[str]) -> set[str]:
    """Those of the keys that a row names."""
    owners = [key.removesuffix("thumbnails") + "data" for key in keys if key.endswith("/thumbnails")]
    kept = DatasetVersion.objects.filter(storage_key__in=[*keys, *owners], files_deleted_at=None)
    data = set(kept.values_list("storage_key", flat=True))
    named = Artifact.objects.filter(storage_key__in=keys, version__files_deleted_at=None)
    files = set(named.values_list("storage_key", flat=True))
    made = set(JobFile.objects.filter(storage_key__in=keys).values_list("storage_key", flat=True))
    return data | {one.removesuffix("data") + "thumbnails" for one in data} | files | made


def _stored(folder: str) -> Iterator[str]:
    try:
        folders, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    yield from (f"{folder}/{name}" for name in files)
    for name in folders:
        yield from _stored(f"{folder}/{name}")
