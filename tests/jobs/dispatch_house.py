"""Runs of attempts against a double of the machine."""

from __future__ import annotations

import json

from jobs import compute
from jobs.models import Attempt, Job
from jobs.services.dispatch import run_attempt
from jobs.services.schedule import schedule_once
from tests.jobs.factories_jobs import FakeCompute, make_job
from trainer.contract import EventKind


def placed(actor, version, fake, **changes) -> Attempt:
    job = make_job(actor, version, **changes)
    assert schedule_once() >= 1
    return Attempt.objects.select_related("job").get(job=job, ended_at=None)


def run_with(script, actor, version, **changes) -> tuple[Job, Attempt, FakeCompute]:
    with compute.use(FakeCompute(script)) as fake:
        attempt = placed(actor, version, fake, **changes)
        run_attempt(attempt.pk)
    return attempt.job.reload(), attempt.reload(), fake


def kinds(job: Job) -> list[str]:
    return list(job.events.values_list("kind", flat=True))


def write_result(engine, original: dict | None = None) -> None:
    """A manifest with one variant and its bundle, as small as the registry takes it."""
    result = engine.gang.folder / "result"
    bundle = result / "original"
    bundle.mkdir(parents=True)
    (bundle / "model.onnx").write_bytes(b"graph")
    (bundle / "model.safetensors").write_bytes(b"weights")
    classes = ["setosa", "virginica"]
    (bundle / "bundle.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "recipe": "tabular-classification",
                "variant": "original",
                "classes": classes,
                "inputs": [{"name": "petal", "datatype": "FP32", "shape": [-1]}],
                "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
                "transform": {},
                "sha256": {},
                "sample": {"petal": [1.0]},
            }
        )
    )
    report = {
        "name": "original", "method": "As trained.", "size_bytes": 5, "compressed_size_bytes": 5,
        "accuracy": 0.9,
        "accuracy_drop": 0.0, "holdout_rows": 12, "latency_p50_ms": 0.1, "latency_p95_ms": 0.2,
        "max_abs_difference": 0.0, "passed_gate": True, "verdict": "The original.",
    }  # fmt: skip
    manifest = {
        "recipe": "tabular-classification", "chosen": "original", "variants": [report], "classes": classes,
        "baseline_accuracy": 0.5, "rows_trained": 48, "steps": 10, "machine": "a double",
    }  # fmt: skip
    (result / "manifest.json").write_text(json.dumps(manifest))


def good_run(engine, turn):
    if turn == 1:
        engine.say(EventKind.STATE, phase="training")
        for step in range(1, 11):
            engine.metric(step, 1 / step)
        engine.say(EventKind.PROGRESS, step=10, total_steps=10, epoch=1, eta_s=0.0)
        return None
    write_result(engine)
    engine.say(EventKind.STATE, phase="done")
    return 0
