"""What stays of a run whose loss was no number any more: its newest weights that still were numbers."""

from __future__ import annotations

from pathlib import Path

from jobs import storage
from jobs.models import Job, JobFile
from jobs.services.job_files import is_ours, prepare_file, store_file
from trainer.contract import LAST_GOOD_FILE


def keep_last_good(job: Job, *, result_dir: Path) -> JobFile | None:
    """Keep them as a file of the job; None where the run left none. Safe to run twice.

    As with models, a quota of storage does not stop it: the training is paid for.
    """
    path = result_dir / LAST_GOOD_FILE
    if not is_ours(path):
        return None
    if known := job.files.filter(name=LAST_GOOD_FILE).first():
        return known
    file = prepare_file(job, LAST_GOOD_FILE)
    store_file(file, path)
    try:
        file.save(force_insert=True)
    except BaseException:
        storage.delete(file.storage_key)
        raise
    return file
