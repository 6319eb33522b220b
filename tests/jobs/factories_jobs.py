"""What tests of jobs need: dataset versions by profile, specs, jobs, and a compute that runs nothing."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image
from sklearn.datasets import load_digits

from billing import seed
from jobs.compute import Gang, Handle
from jobs.models import Dataset, DatasetVersion, Job
from jobs.scheduling import Capacity
from jobs.services.datasets import create_dataset
from jobs.services.jobs import submit_job
from jobs.specs import JobSpec
from tenants.actor import Actor
from tenants.models import Tenant
from trainer.contract import CONTROL_FILE, EVENTS_FILE, Event, EventKind

FLOWERS = {
    "columns": [
        {"name": "petal", "type": "number", "missing": 0, "distinct": 40, "top": []},
        {"name": "sepal width", "type": "number", "missing": 2, "distinct": 35, "top": []},
        {"name": "kind", "type": "text", "missing": 0, "distinct": 3, "top": [["setosa", 50]]},
        {"name": "country", "type": "text", "missing": 0, "distinct": 1, "top": [["fr", 150]]},
        {"name": "note", "type": "text", "missing": 60, "distinct": 9, "top": []},
    ]
}
DIGITS = {"classes": {str(n): 170 for n in range(10)}, "image": {"width": 8, "height": 8, "channels": 1}}


def make_version(
    tenant: Tenant,
    *,
    format: str = "csv",
    rows: int = 150,
    profile: dict[str, Any] | None = None,
    name: str = "flowers",
) -> DatasetVersion:
    """A version that exists as a row only: enough for everything that reads the profile."""
    dataset = Dataset.objects.create(tenant=tenant, name=name)
    return DatasetVersion.objects.create(
        tenant=tenant,
        dataset=dataset,
        number=1,
        format=format,
        file_name=f"{name}.{format}",
        storage_key=f"tenants/{tenant.public_id}/datasets/{name}",
        sha256="0" * 64,
        size_bytes=1000,
        row_count=rows,
        profile=profile if profile is not None else (DIGITS if format == "images" else FLOWERS),
    )


def spec_data(version: DatasetVersion, **changes: Any) -> dict[str, Any]:
    """A spec that is right for the flowers; changes replace whole parts."""
    recipe = "image-classification" if version.format == "images" else "tabular-classification"
    columns = {} if version.format == "images" else {"label": "kind"}
    return {
        "name": "First try",
        "recipe": recipe,
        "dataset": version.public_id,
        "columns": columns,
        **changes,
    }


def make_job(actor: Actor, version: DatasetVersion | None = None, **changes: Any) -> Job:
    """A job in line, through the real door."""
    seed.seed()
    assert actor.tenant is not None
    if version is None:
        version = DatasetVersion.objects.filter(tenant=actor.tenant).first() or make_version(actor.tenant)
    return submit_job(actor, JobSpec.parse(actor, spec_data(version, **changes)))


def digits_zip(images: int = 400) -> SimpleUploadedFile:
    """scikit-learn's handwritten digits, one folder a digit."""
    digits, buffer = load_digits(), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, (pixels, label) in enumerate(
            zip(digits.images[:images], digits.target[:images], strict=True)
        ):
            picture = io.BytesIO()
            Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(picture, "PNG")
            archive.writestr(f"{label}/{index:04}.png", picture.getvalue())
    return SimpleUploadedFile("digits.zip", buffer.getvalue())


def upload_digits(actor: Actor, images: int = 400) -> DatasetVersion:
    return create_dataset(actor, name="digits", file=digits_zip(images))


def upload_flowers(actor: Actor) -> DatasetVersion:
    rows = [f"{n % 7},{n % 5},{'setosa' if n % 7 > 3 else 'virginica'}" for n in range(60)]
    content = "\n".join(["petal,sepal,kind", *rows]).encode()
    return create_dataset(actor, name="small flowers", file=SimpleUploadedFile("flowers.csv", content))


class Engine:
    """Writes what an engine would write into its run folder; a test's script drives it."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang
        self.seq = 0

    def say(self, kind: EventKind, **data: Any) -> None:
        self.seq += 1
        line = Event(seq=self.seq, at=datetime.now(UTC).isoformat(), kind=kind, data=data).to_line()
        with (self.gang.folder / EVENTS_FILE).open("a") as file:
            file.write(line)

    def metric(self, step: int, value: float, name: str = "train/loss") -> None:
        self.say(EventKind.METRIC, step=step, name=name, value=value)

    @property
    def is_cancelled(self) -> bool:
        path = self.gang.folder / CONTROL_FILE
        return path.exists() and bool(json.loads(path.read_text()).get("cancel"))


Script = Callable[[Engine, int], int | None]


class FakeCompute:
    """Runs no process: at each poll the script is asked what happened, with the number of the poll."""

    def __init__(self, script: Script | None = None, *, processes: int = 2, gpus: int = 0) -> None:
        self.script: Script = script or (lambda engine, turn: 0)
        self.there = Capacity(node="fake", processes=processes, gpus=gpus)
        self.started: list[Gang] = []
        self.signals: list[int] = []
        self.stopped: list[str] = []
        self._engines: dict[str, Engine] = {}
        self._turns: dict[str, int] = {}

    def capacity(self) -> Capacity:
        return self.there

    def start(self, gang: Gang) -> Handle:
        self.started.append(gang)
        self._engines[gang.run] = Engine(gang)
        self._turns[gang.run] = 0
        return {"node": "fake", "run": gang.run}

    def poll(self, handle: Handle) -> int | None:
        run = handle["run"]
        if run in self.stopped:
            return -9
        self._turns[run] += 1
        return self.script(self._engines[run], self._turns[run])

    def signal(self, handle: Handle, number: int) -> None:
        self.signals.append(number)

    def stop(self, handle: Handle, *, grace_s: float) -> None:
        self.stopped.append(handle["run"])

    def stop_run(self, run: str) -> None:
        self.stopped.append(run)

    def folder(self, run: str) -> Path:
        return self._engines[run].gang.folder
