"""What stays of a run whose loss was no number any more: its newest weights that still were numbers."""

from __future__ import annotations

from pathlib import Path

from jobs import storage
from jobs.models import Job, JobFile
from tenants.models.base import new_public_id
from trainer.contract import LAST_GOOD_FILE


def keep_last_good(job: Job, *, result_dir: Path) -> JobFile | None:
    """Keep them as a file of the job; None where the run left none. Safe to run twice.

    As with models, a quota of storage does not stop it: the training is paid for.
    """
    path = result_dir / LAST_GOOD_FILE
    # a link would let a run hand out a file of this machine
    if not path.is_file() or path.is_symlink():
        return None
    if known := job.files.filter(name=LAST_GOOD_FILE).first():
        return known
    public_id = new_public_id("file")
    key = f"tenants/{job.tenant.public_id}/jobs/{job.public_id}/{public_id}"
    file = JobFile(public_id=public_id, tenant=job.tenant, job=job, name=LAST_GOOD_FILE, storage_key=key)
    with path.open("rb") as source:
        stored = storage.put(job.tenant, key, storage.file_chunks(source))
    file.sha256, file.size_bytes = stored.sha256, stored.size_bytes
    try:
        file.save(force_insert=True)
    except BaseException:
        storage.delete(key)
        raise
    return file
