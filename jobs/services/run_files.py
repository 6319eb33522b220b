"""Run folders: where an attempt works on this machine, and copies between them, whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from django.conf import settings

from jobs.models import Attempt, Job
from tenants.errors import DiskFull


def run_folder(attempt: Attempt) -> Path:
    return Path(settings.RUNS_DIR) / attempt.public_id


def forget_runs(job: Job) -> None:
    """Remove what the attempts of an ended job left on this machine."""
    for attempt in job.attempts.all():
        shutil.rmtree(run_folder(attempt), ignore_errors=True)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a folder beside its place and rename it: what a kill leaves half is never taken for the whole.

    Raises DiskFull. `shutil` gathers the faults of single files and forgets their numbers.
    """
    beside = target.with_name(f".{target.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shutil.copytree(source, beside)
    except shutil.Error as error:
        shutil.rmtree(beside, ignore_errors=True)
        if f"[Errno {errno.ENOSPC}]" in str(error):
            raise DiskFull from None
        raise
    for folder, _folders, files in os.walk(beside):
        for name in files:  # the disk may be full only when it is written for good
            with Path(folder, name).open("rb") as file:
                os.fsync(file.fileno())
    beside.rename(target)
