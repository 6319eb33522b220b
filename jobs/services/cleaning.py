"""Files that nobody needs any more: of datasets archived long enough ago, and those that no row names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from jobs import storage
from jobs.models import Artifact, Dataset, DatasetVersion, JobFile
from jobs.services.datasets import thumbnails_key
from jobs.states import JOB_ENDED, JobStatus
from tenants import audit
from tenants.actor import SYSTEM

log = logging.getLogger(__name__)

ORPHAN_AGE = timedelta(days=1)  # an upload under way has its file before its row
_BATCH = 500
_HOME = "tenants"


def deleted_on(dataset: Dataset) -> datetime | None:
    """When the files of an archived dataset go, or went at the earliest; None while it is in use."""
    if dataset.archived_at is None:
        return None
    return dataset.archived_at + timedelta(days=settings.ARCHIVE_GRACE_DAYS)


def delete_archived_files() -> int:
    """Delete the files of datasets archived before the grace; rows and checksums stay. Returns how many."""
    limit = timezone.now() - timedelta(days=settings.ARCHIVE_GRACE_DAYS)
    due = DatasetVersion.objects.filter(dataset__archived_at__lt=limit, files_deleted_at=None)
    # a job that waits or runs was promised this data
    due = due.exclude(jobs__status__in=set(JobStatus) - JOB_ENDED)
    count = 0
    for version in due.select_related("dataset", "tenant").order_by("pk")[:_BATCH]:
        # the row first: should the files outlive a crash here, they are orphans and go as such
        with transaction.atomic():
            now = timezone.now()
            if not DatasetVersion.objects.filter(pk=version.pk, files_deleted_at=None).update(
                files_deleted_at=now
            ):
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
    files = set(Artifact.objects.filter(storage_key__in=keys).values_list("storage_key", flat=True))
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
