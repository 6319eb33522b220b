"""A job's metrics in formats of other tools."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from django.conf import settings
from django.http import HttpResponse
from django.utils.translation import gettext as _

from jobs.models import Job, JobEvent
from tenants.errors import Unavailable
from trainer.contract import EventKind

LIMIT_S = 60.0


def tensorboard_name(job: Job) -> str:
    """TensorBoard opens what has `tfevents` in its name."""
    return f"events.out.tfevents.{int(job.created_at.timestamp())}.{job.public_id}"


def tensorboard_file(job: Job) -> bytes:
    """Every metric of a job as an event file; of a step that was done again, the last value.

    The engine writes it in a process of its own: of the engine, the web reads only the contract.
    """
    found = {}
    rows = JobEvent.objects.filter(job=job, kind=EventKind.METRIC).order_by("seq").values_list("at", "data")
    for at, data in rows.iterator():
        found[data.get("name"), data.get("step")] = {**data, "at": at.timestamp()}
    with tempfile.TemporaryFile() as lines:
        for metric in found.values():
            lines.write(json.dumps(metric).encode() + b"\n")
        lines.seek(0)
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(settings.BASE_DIR / "trainer" / "tensorboard.py")],
                stdin=lines, capture_output=True, timeout=LIMIT_S, check=True,
            )  # fmt: skip
        except subprocess.SubprocessError as error:
            raise Unavailable(_("The file could not be written in time. Try again.")) from error
    return done.stdout


def download(job: Job) -> HttpResponse:
    """The event file as an attachment, for the page and the API."""
    name = tensorboard_name(job)
    return HttpResponse(
        tensorboard_file(job),
        content_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
