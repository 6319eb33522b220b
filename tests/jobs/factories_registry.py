"""Results of runs, written by hand the way the engine writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jobs.models import DatasetVersion, Job, ModelVersion
from jobs.services import registry
from jobs.states import JobStatus
from tenants.actor import Actor
from tests.jobs.factories_datasets import make_dataset
from trainer.contract import (
    BUNDLE_FILE,
    MANIFEST_FILE,
    ONNX_FILE,
    SAFETENSORS_FILE,
    Manifest,
    Recipe,
    VariantReport,
)

MEASURED: dict[str, dict[str, Any]] = {
    "original": {
        "method": "The network as trained, in 32-bit floats.", "size_bytes": 40_000,
        "compressed_size_bytes": 38_000, "accuracy": 0.975, "latency_p50_ms": 0.21, "latency_p95_ms": 0.34,
        "verdict": "The yardstick: the others are compared with it.", "passed_gate": True,
    },
    "int8": {
        "method": "Weights and activations in 8 bits, calibrated on 256 rows.", "size_bytes": 11_000,
        "compressed_size_bytes": 9_000, "accuracy": 0.972, "latency_p50_ms": 0.16, "latency_p95_ms": 0.22,
        "verdict": "3.6x smaller, 1.3x faster here, accuracy 0.30 points lower", "passed_gate": True,
    },
    "prune": {
        "method": "Half of the weights set to zero by magnitude.", "size_bytes": 40_000,
        "compressed_size_bytes": 22_000, "accuracy": 0.931, "latency_p50_ms": 0.21, "latency_p95_ms": 0.35,
        "verdict": "same file size, as fast here, accuracy 4.40 points lower, "
        "more than the allowed 1.0 points, so it did not pass", "passed_gate": False,
    },
}  # fmt: skip


def make_finished_job(
    actor: Actor, version: DatasetVersion | None = None, name: str = "digits", **fields: Any
) -> Job:
    version = version or DatasetVersion.objects.filter(tenant=actor.tenant).first() or make_dataset(actor)
    return Job.objects.create(
        tenant=actor.tenant, name=name, created_by=actor.user, dataset_version=version,
        recipe="text-classification", spec=fields.pop("spec", {}), processes=2, max_time_s=600,
        estimate_low="0.01", estimate_high="0.02", status=JobStatus.SUCCEEDED, **fields,
    )  # fmt: skip


def write_result(
    folder: Path,
    *,
    chosen: str = "int8",
    recipe: Recipe = Recipe.TEXT,
    variants: dict[str, dict[str, Any]] | None = None,
) -> Path:
    """result/ with a manifest and one bundle a variant; the model files are made-up bytes."""
    reports = []
    for name, measured in (variants or MEASURED).items():
        home = folder / name
        home.mkdir(parents=True)
        (home / ONNX_FILE).write_bytes(f"the graph of {name} ".encode() * (measured["size_bytes"] // 20))
        (home / SAFETENSORS_FILE).write_bytes(f"the weights of {name} ".encode() * 50)
        bundle = {
            "schema": 1, "recipe": recipe, "variant": name, "classes": ["no", "yes"],
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
            "transform": {}, "sample": {"text": ["good thing 3"]},
            "sha256": {file: checksum(home / file) for file in (ONNX_FILE, SAFETENSORS_FILE)},
        }  # fmt: skip
        (home / BUNDLE_FILE).write_text(json.dumps(bundle))
        base = (variants or MEASURED)["original"]["accuracy"]
        reports.append(
            VariantReport(
                name=name,
                holdout_rows=360,
                accuracy_drop=round(base - measured["accuracy"], 6),
                max_abs_difference=0.0 if name == "original" else 0.04,
                **measured,
            )
        )
    manifest = Manifest(
        recipe=recipe, chosen=chosen, variants=tuple(reports), classes=("no", "yes"), baseline_accuracy=0.52,
        rows_trained=1437, steps=230, machine="2 x Intel Xeon, one thread",
    )  # fmt: skip
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return folder


def make_model(actor: Actor, folder: Path, name: str = "digits", **fields: Any) -> ModelVersion:
    """A registered run; returns its chosen version."""
    job = make_finished_job(actor, name=name, **fields)
    version = registry.register_run(job, attempt=None, result_dir=write_result(folder / job.public_id))
    assert version is not None
    return version


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
