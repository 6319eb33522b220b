"""After training: make the variants, measure them in a fresh process, gate them, and describe the result."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import trainer
from trainer import optim
from trainer.bundle import write_bundle
from trainer.compress import gate
from trainer.compress.prune import apply_masks, prune_by_magnitude, sparsity_of
from trainer.compress.quantize import quantize_int8
from trainer.contract import (
    MANIFEST_FILE,
    ONNX_FILE,
    RESULT_DIR,
    Manifest,
    Method,
    VariantReport,
)
from trainer.data import batches, epoch_order, take
from trainer.distributed import Gang
from trainer.evaluate import save_holdout
from trainer.export import export_initializers, export_network
from trainer.failures import Cancelled, Preempted
from trainer.files import replace_atomically
from trainer.loop import Stepper, probabilities, usable_precision
from trainer.prepare import Prepared, Run

CALIBRATION_ROWS = 256
_WORK = ".work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    name: str
    method: str


def finish(run: Run, prepared: Prepared, network: nn.Module, gang: Gang, *, steps: int) -> Manifest:
    """Export, compress, measure and gate a trained network. Rank 0 alone; result/manifest.json comes last."""
    result = run.folder / RESULT_DIR
    shutil.rmtree(result, ignore_errors=True)
    work = result / _WORK
    work.mkdir(parents=True)
    made = _make_variants(run, prepared, network, gang, result)
    run.events.state("evaluating")
    measured = _measure(run, [result / item.name for item in made], work / "holdout.npz")
    reports = _reports(made, measured["variants"], run.spec.compression.max_accuracy_drop)
    for report in reports:
        run.events.variant(report)
    chosen = gate.choose(reports)
    run.events.log(f"The gate chose {chosen!r} of {len(reports)} variants.")
    manifest = Manifest(
        recipe=run.spec.recipe,
        chosen=chosen,
        variants=tuple(reports),
        classes=prepared.classes,
        baseline_accuracy=prepared.baseline_accuracy,
        rows_trained=len(prepared.split.train),
        steps=steps,
        machine=measured["machine"],
    )
    shutil.rmtree(work, ignore_errors=True)
    replace_atomically(result / MANIFEST_FILE, manifest.to_json().encode())
    return manifest


def _make_variants(run: Run, prepared: Prepared, network: nn.Module, gang: Gang, result: Path) -> list[Made]:
    held = prepared.split.holdout
    run.events.state("exporting")
    reference = probabilities(network, prepared, held, gang.device)
    holdout = take(prepared.rows.inputs, held)
    save_holdout(result / _WORK / "holdout.npz", holdout, prepared.labels[held], reference)
    _export(run, prepared, copy.deepcopy(network), result / gate.ORIGINAL)
    made = [Made(name=gate.ORIGINAL, method="As trained, in 32-bit floating point.")]
    methods = run.spec.compression.methods
    if methods:
        run.events.state("compressing")
    sources = [gate.ORIGINAL]
    if Method.PRUNE in methods:
        pruned = _prune(run, prepared, network, gang)
        _export(run, prepared, pruned, result / "prune")
        share, zeros = round(100 * run.spec.compression.sparsity), round(100 * sparsity_of(pruned))
        made.append(
            Made(
                name="prune",
                method=f"The smallest {share} % of the weights set to zero, then one epoch of fine-tuning; "
                f"{zeros} % are zero now.",
            )
        )
        sources.append("prune")
    if Method.INT8 in methods:
        for source in sources:
            _quantize(run, prepared, result, source, made)
    return made


def _export(run: Run, prepared: Prepared, network: nn.Module, folder: Path) -> None:
    run.control.stop_here()
    rows = prepared.split.train
    cpu = torch.device("cpu")
    examples = [prepared.tensors(part, cpu)[0] for part in (rows[:2], rows[:1], rows[-5:])]
    export_network(network, examples, folder, graph_input=prepared.recipe.GRAPH_INPUT)
    _describe(run, prepared, folder)


def _quantize(run: Run, prepared: Prepared, result: Path, source: str, made: list[Made]) -> None:
    """Add the int8 twin of a variant. If ONNX Runtime cannot make it, say so and keep what there is."""
    run.control.stop_here()
    name = "int8" if source == gate.ORIGINAL else f"{source}-int8"
    try:
        method = quantize_int8(result / source / ONNX_FILE, result / name, _calibration(run, prepared))
        export_initializers(result / name)
        _describe(run, prepared, result / name)
    except (Cancelled, Preempted, MemoryError, OSError):
        raise
    except Exception as error:
        shutil.rmtree(result / name, ignore_errors=True)
        run.events.log(f"{name} could not be made and is left out: {error}", level="warning")
        return
    before = "As trained" if source == gate.ORIGINAL else "Pruned"
    made.append(Made(name=name, method=f"{before}, then {method}."))


def _describe(run: Run, prepared: Prepared, folder: Path) -> None:
    write_bundle(
        folder,
        recipe_name=run.spec.recipe,
        variant=folder.name,
        classes=prepared.classes,
        transform=prepared.transform,
        sample=take(prepared.rows.inputs, prepared.split.holdout[:1]),
    )


def _calibration(run: Run, prepared: Prepared) -> Iterator[dict[str, Any]]:
    """Training rows, never held-out ones: the ranges are part of the model."""
    order = epoch_order(len(prepared.split.train), seed=run.spec.hyperparameters.seed, epoch=0)
    rows = prepared.split.train[order[:CALIBRATION_ROWS]]
    for part in batches(rows, 32):
        yield {prepared.recipe.GRAPH_INPUT: np.asarray(prepared.recipe.batch(prepared.encoded[part]))}


def _prune(run: Run, prepared: Prepared, trained: nn.Module, gang: Gang) -> nn.Module:
    """A pruned copy, fine-tuned for one epoch over the training rows with the zeros held at zero."""
    network = copy.deepcopy(trained)
    masks = prune_by_magnitude(network, run.spec.compression.sparsity)
    hyper = run.spec.hyperparameters
    alone = Gang(rank=0, world=1, device=gang.device)
    stepper = Stepper(
        network=network.train(),
        optimizer=optim.make_optimizer(network, hyper, gang.device),
        prepared=prepared,
        gang=alone,
        precision=usable_precision(run, alone),
        seed=hyper.seed + 1,
    )
    order = epoch_order(len(prepared.split.train), seed=hyper.seed, epoch=hyper.epochs)
    parts = list(batches(prepared.split.train[order], hyper.batch_size))
    for number, rows in enumerate(parts):
        run.control.stop_here()
        # gently: the weights that are left have been trained already
        rate = optim.learning_rate(number, total_steps=len(parts), peak=hyper.learning_rate / 2)
        optim.set_learning_rate(stepper.optimizer, rate)
        stepper.step(rows, number)
        apply_masks(network, masks)
    return network


def _measure(run: Run, folders: list[Path], holdout: Path) -> dict[str, Any]:
    """Run `python -m trainer evaluate` on what was written: what counts is what a stranger can load."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    home = str(Path(trainer.__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "trainer", "evaluate", *map(str, folders), str(holdout)]
    out, err = holdout.with_name("measured.json"), holdout.with_name("measure.log")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
        try:
            while process.poll() is None:
                run.control.stop_here()
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        said = err.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"measuring failed ({process.returncode}): {said[-1] if said else 'no message'}")
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def _reports(made: list[Made], measured: list[dict[str, Any]], max_drop: float) -> list[VariantReport]:
    by_name = {item["name"]: item for item in measured}
    base = by_name[gate.ORIGINAL]
    reports = []
    for item in made:
        figures = by_name[item.name]
        drop = base["accuracy"] - figures["accuracy"]
        reports.append(
            VariantReport(
                method=item.method,
                accuracy_drop=drop,
                passed_gate=gate.passes(drop, max_accuracy_drop=max_drop),
                verdict=gate.verdict(
                    name=item.name,
                    size=(base["size_bytes"], figures["size_bytes"]),
                    compressed=(base["compressed_size_bytes"], figures["compressed_size_bytes"]),
                    latency_ms=(base["latency_p50_ms"], figures["latency_p50_ms"]),
                    accuracy_drop=drop,
                    max_accuracy_drop=max_drop,
                ),
                **figures,
            )
        )
    return reports
