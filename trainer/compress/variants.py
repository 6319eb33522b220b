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
from trainer.compress import gate, search
from trainer.compress.combine import combinations
from trainer.compress.prune import apply_masks, prune_by_magnitude, sparsity_of
from trainer.compress.quantize import quantize_int8
from trainer.contract import (
    MANIFEST_FILE,
    ONNX_FILE,
    RESULT_DIR,
    Baseline,
    Manifest,
    Method,
    Quality,
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
SAME = 1e-3  # a reloaded graph may differ this much from the torch network it was made from
_WORK = ".work"
_FIGURES = (
    "size_bytes",
    "compressed_size_bytes",
    "accuracy",
    "holdout_rows",
    "latency_p50_ms",
    "latency_p95_ms",
    "max_abs_difference",
    "figures",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    name: str
    method: str
    searched: bool = False  # one of many tried: it stays only if no other one beats it


def finish(
    run: Run,
    prepared: Prepared,
    network: nn.Module,
    gang: Gang,
    *,
    steps: int,
    search_budget_s: float = search.BUDGET_S,
) -> Manifest:
    """Export, compress, measure and gate a trained network. Rank 0 alone; result/manifest.json comes last."""
    result = run.folder / RESULT_DIR
    shutil.rmtree(result, ignore_errors=True)
    work = result / _WORK
    work.mkdir(parents=True)
    made = _make_variants(run, prepared, network, gang, result, search_budget_s)
    run.events.state("evaluating")
    measured = _measure(run, [result / item.name for item in made], work / "holdout.npz")
    made = _alike(run, made, measured["variants"])
    reports = _reports(
        made, measured["variants"], run.spec.compression.max_accuracy_drop, prepared.recipe.TASK.quality
    )
    reports = _worth_keeping(run, made, reports)
    for report in reports:
        run.events.variant(report)
    for left in {item.name for item in made} - {report.name for report in reports}:
        shutil.rmtree(result / left)
    chosen = gate.choose(reports)
    run.events.log(f"The gate chose {chosen!r} of {len(reports)} variants.")
    beats = next(report.beats_baseline for report in reports if report.name == chosen)
    task = prepared.recipe.TASK
    baseline = Baseline(name=task.guess_name, value=float(prepared.scores(prepared.guess()).mean()))
    if beats is False:
        run.events.log(_no_better(prepared, baseline), level="warning")
    manifest = Manifest(
        recipe=run.spec.recipe,
        chosen=chosen,
        variants=tuple(reports),
        classes=prepared.classes,
        baseline_accuracy=baseline.value,
        quality=task.quality,
        rows_trained=len(prepared.split.train),
        steps=steps,
        machine=measured["machine"],
        baseline=baseline,
        beats_baseline=beats,
    )
    shutil.rmtree(work, ignore_errors=True)
    replace_atomically(result / MANIFEST_FILE, manifest.to_json().encode())
    return manifest


def _no_better(prepared: Prepared, baseline: Baseline) -> str:
    advice = "look at the labels and columns, train longer, or add rows."
    if prepared.recipe.TASK.quality is not Quality.ACCURACY:
        return (
            f"This model is not clearly better than the simplest guess ({baseline.name}), "
            f"whose {prepared.recipe.TASK.quality} is {baseline.value:.3f}: {advice}"
        )
    commonest = prepared.classes[int(prepared.guess()[0].argmax())]
    return (
        f"This model is not clearly better than always answering {commonest!r}, "
        f"which is right for {100 * baseline.value:.1f} % of the held-out rows: {advice}"
    )


def _make_variants(
    run: Run, prepared: Prepared, network: nn.Module, gang: Gang, result: Path, budget_s: float
) -> list[Made]:
    """Every variant as a bundle in its folder, and the held-out rows with what torch answers for them."""
    run.events.state("exporting")
    held = prepared.split.holdout
    # measured on these rows and no others; every network below was trained and calibrated without them
    answers = {gate.ORIGINAL: probabilities(network, prepared, held, gang.device)}
    _export(run, prepared, copy.deepcopy(network), result / gate.ORIGINAL)
    made = [Made(name=gate.ORIGINAL, method="As trained, in 32-bit floating point.")]
    methods = run.spec.compression.methods
    if methods:
        run.events.state("compressing")
    if Method.PRUNE in methods:
        pruned = _prune(run, prepared, network, gang)
        answers["prune"] = probabilities(pruned, prepared, held, gang.device)
        _export(run, prepared, pruned, result / "prune")
        share, zeros = round(100 * run.spec.compression.sparsity), round(100 * sparsity_of(pruned))
        made.append(
            Made(
                name="prune",
                method=f"The smallest {share} % of the weights set to zero, then one epoch of fine-tuning; "
                f"{zeros} % are zero now.",
            )
        )
    for name, smaller, method in combinations(run, prepared, network, gang, budget_s=budget_s):
        answers[name] = probabilities(smaller.to(gang.device), prepared, held, gang.device)
        _export(run, prepared, copy.deepcopy(smaller), result / name)
        made.append(Made(name=name, method=method, searched=True))
    if Method.INT8 in methods:
        for source in list(made):
            _quantize(run, prepared, result, source, made)
    rows = take(prepared.rows.inputs, held)
    save_holdout(result / _WORK / "holdout.npz", rows, prepared.labels[held], answers, guess=prepared.guess())
    return made


def _export(run: Run, prepared: Prepared, network: nn.Module, folder: Path) -> None:
    run.control.stop_here()
    rows = prepared.split.train
    cpu = torch.device("cpu")
    examples = [prepared.tensors(part, cpu)[0] for part in (rows[:2], rows[:1], rows[-5:])]
    export_network(network, examples, folder, graph_input=prepared.recipe.GRAPH_INPUT)
    _describe(run, prepared, folder)


def _quantize(run: Run, prepared: Prepared, result: Path, source: Made, made: list[Made]) -> None:
    """Add the int8 twin of a variant. If ONNX Runtime cannot make it, say so and keep what there is."""
    run.control.stop_here()
    name = "int8" if source.name == gate.ORIGINAL else f"{source.name}-int8"
    try:
        method = quantize_int8(result / source.name / ONNX_FILE, result / name, _calibration(run, prepared))
        export_initializers(result / name)
        _describe(run, prepared, result / name)
    except (Cancelled, Preempted, MemoryError, OSError):
        raise
    except Exception as error:
        shutil.rmtree(result / name, ignore_errors=True)
        run.events.log(f"{name} could not be made and is left out: {error}", level="warning")
        return
    before = {gate.ORIGINAL: "As trained, then", "prune": "Pruned, then"}.get(
        source.name, f"{source.method} Then"
    )
    made.append(Made(name=name, method=f"{before} {method}.", searched=source.searched))


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


def _alike(run: Run, made: list[Made], measured: list[dict[str, Any]]) -> list[Made]:
    """Only what answers, reloaded in another process, as its torch network did counts as done."""
    by_name = {item["name"]: item for item in measured}
    kept = []
    for item in made:
        differs = by_name[item.name]["export_difference"]
        if differs is None or differs <= SAME:
            kept.append(item)
            continue
        said = f"{item.name} answers differently once it is reloaded (by {differs:.2g})"
        if item.name == gate.ORIGINAL:
            raise RuntimeError(f"{said}: the export cannot be trusted.")
        run.events.log(f"{said} and is left out.", level="warning")
    return kept


def _worth_keeping(run: Run, made: list[Made], reports: list[VariantReport]) -> list[VariantReport]:
    """All that was asked for by name, and of the combinations tried the Pareto front."""
    searched = {item.name for item in made if item.searched}
    front = set(search.front(reports))
    kept = [report for report in reports if report.name not in searched or report.name in front]
    for report in reports:
        if report not in kept:
            run.events.log(f"{report.name} is left out, another one beats it: {report.verdict}.")
    return kept


def _reports(
    made: list[Made],
    measured: list[dict[str, Any]],
    max_drop: float,
    quality: str = Quality.ACCURACY,
) -> list[VariantReport]:
    by_name = {item["name"]: item for item in measured}
    base = by_name[gate.ORIGINAL]
    reports = []
    for item in made:
        figures = by_name[item.name]
        drop = base["accuracy"] - figures["accuracy"]
        lost = figures.get("lost_rows")
        high = None if item.name == gate.ORIGINAL else gate.highest_drop(figures)
        low, most = gate.interval(figures)
        reports.append(
            VariantReport(
                name=item.name,
                method=item.method,
                **{name: figures[name] for name in _FIGURES},
                accuracy_drop=drop,
                accuracy_low=low,
                accuracy_high=most,
                drop_high=high,
                beats_baseline=gate.beats_guess(figures),
                passed_gate=gate.passes(drop, max_accuracy_drop=max_drop, drop_high=high, lost_rows=lost),
                verdict=gate.verdict(
                    name=item.name,
                    size=(base["size_bytes"], figures["size_bytes"]),
                    compressed=(base["compressed_size_bytes"], figures["compressed_size_bytes"]),
                    latency_ms=(base["latency_p50_ms"], figures["latency_p50_ms"]),
                    accuracy_drop=drop,
                    max_accuracy_drop=max_drop,
                    drop_high=high,
                    lost_rows=lost,
                    quality=quality,
                ),
            )
        )
    return reports
