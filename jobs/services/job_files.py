"""Files that jobs left: stored, read, made a dataset of, and removed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.core.files.base import File
from django.db import transaction
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from jobs import storage
from jobs.models import DatasetVersion, Job, JobFile
from jobs.services import datasets
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict
from tenants.models.base import new_public_id
from tenants.permissions import require


def prepare_file(job: Job, name: str) -> JobFile:
    """The row of a file of this job, not saved yet."""
    public_id = new_public_id("file")
    key = f"tenants/{job.tenant.public_id}/jobs/{job.public_id}/{public_id}"
    return JobFile(public_id=public_id, tenant=job.tenant, job=job, name=name, storage_key=key)


def is_ours(path: Path) -> bool:
    """Whether a run left this file itself: a link would let it hand out a file of this machine."""
    return path.is_file() and not path.is_symlink()


def store_file(file: JobFile, path: Path) -> None:
    """Encrypt what lies at `path` into the storage of the tenant; the row learns its sum and size."""
    with path.open("rb") as source:
        stored = storage.put(file.tenant, file.storage_key, storage.file_chunks(source))
    file.sha256, file.size_bytes = stored.sha256, stored.size_bytes


def find_file(actor: Actor, job_id: str, name: str) -> JobFile:
    """One file by its job's public id and its name, as far as the actor may see it; Http404 otherwise."""
    rows = JobFile.objects.visible_to(actor).select_related("tenant", "job")
    return get_object_or_404(rows, job__public_id=job_id, name=name)


def open_file(actor: Actor, file: JobFile) -> Iterator[bytes]:
    """The plain bytes of one file, for somebody who may download it."""
    require(actor, "jobs.download", file)
    audit.record(actor, "job.downloaded", file.job, file=file.name)
    return storage.open_chunks(file.tenant, file.storage_key)


def save_as_dataset(actor: Actor, file: JobFile, *, name: str) -> DatasetVersion:
    """A new dataset with this file as its first version, looked at like any upload."""
    require(actor, "datasets.upload")
    with storage.naming_full_disk(), tempfile.TemporaryFile() as copy:
        for chunk in open_file(actor, file):
            copy.write(chunk)
        return datasets.create_dataset(actor, name=name, file=File(copy, name=file.name))


def remove_files(actor: Actor, job: Job) -> int:
    """Delete what a job left, so that nothing is paid for keeping it; returns how many files went."""
    require(actor, "jobs.submit", job)
    with transaction.atomic():
        job = Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
        if not job.is_ended:
            raise Conflict(_("This job has not ended yet. Stop it first."))
        files = list(job.files.all())
        JobFile.objects.filter(pk__in=[file.pk for file in files]).delete()
        if job.result:
            # the first answers and the named rows are words of the data; the counts may stay
            kept = {name: count for name, count in job.result.items() if name in ("rows", "answered", "bad")}
            Job.objects.filter(pk=job.pk).update(result=kept)
        if files:
            audit.record(actor, "job.files_deleted", job, files=[file.name for file in files])
    # the rows first: should the files outlive a crash here, they are orphans and go as such
    for file in files:
        storage.delete(file.storage_key)
    return len(files)
