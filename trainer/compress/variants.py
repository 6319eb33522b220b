"""After training: make the variants, measure them in a fresh process, gate them, and describe the result."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainer import gauges, optim
from trainer.bundle import write_bundle
from trainer.compress import gate, search
from trainer.compress.combine import combinations
from trainer.compress.measuring import measure_files, probabilities, time_eager
from trainer.compress.prune import apply_masks, prune_by_magnitude, sparsity_of
from trainer.compress.quantize import quantize_int8
from trainer.compress.weights import pack_weights
from trainer.contract import (
    MANIFEST_FILE,
    ONNX_FILE,
    RESULT_DIR,
    Baseline,
    LeftOut,
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
from trainer.prepare import Prepared, Run
from trainer.stepper import Stepper, usable_precision

CALIBRATION_ROWS = 256
FEWER_BITS = (Method.INT8, Method.WEIGHTS8, Method.WEIGHTS4)
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
    source: str | None = None  # the variant whose numbers it stores in fewer bits


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
    measured = measure_files(run, [result / item.name for item in made], work / "holdout.npz")
    eager = time_eager(run, prepared, network, result / gate.ORIGINAL)
    made = _alike(run, made, measured["variants"])
    reports = _reports(
        made, measured["variants"], run.spec.compression.max_accuracy_drop, prepared.recipe.TASK.quality
    )
    tried, reports = reports, _worth_keeping(run, made, reports)
    beaten = [report for report in tried if report not in reports]
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
        eager=eager,
        left_out=tuple(
            LeftOut(**{item.name: getattr(report, item.name) for item in fields(LeftOut)})
            for report in beaten
        ),
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
    whole = list(made)
    for method in (one for one in FEWER_BITS if one in methods):
        for source in whole:
            _store(run, prepared, result, source, method, made)
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


def _store(run: Run, prepared: Prepared, result: Path, source: Made, how: Method, made: list[Made]) -> None:
    """Add the twin of a variant in fewer bits. If it cannot be made, say so and keep what there is."""
    run.control.stop_here()
    name = str(how) if source.name == gate.ORIGINAL else f"{source.name}-{how}"
    graph = result / source.name / ONNX_FILE
    try:
        if how is Method.INT8:
            method = quantize_int8(graph, result / name, _calibration(run, prepared))
        else:
            method = pack_weights(graph, result / name, bits=8 if how is Method.WEIGHTS8 else 4)
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
    made.append(Made(name=name, method=f"{before} {method}.", searched=source.searched, source=source.name))


def _describe(run: Run, prepared: Prepared, folder: Path) -> None:
    write_bundle(
        folder,
        recipe_name=run.spec.recipe,
        variant=folder.name,
        classes=prepared.classes,
        transform=prepared.transform,
        sample=take(prepared.rows.inputs, prepared.split.holdout[:1]),
        profile=_profile(run, prepared),
    )


def _profile(run: Run, prepared: Prepared) -> dict[str, Any] | None:
    """What the training rows looked like, for telling later how far live ones are from them.

    A private run promises that no row can be told from what it leaves: it leaves no counts.
    """
    if run.spec.training.privacy_epsilon is not None:
        return None
    rows = take(prepared.rows.inputs, prepared.split.train)
    return gauges.profile(run.spec.recipe, rows, seed=run.spec.hyperparameters.seed)


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
                source=item.source,
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
                    int8_source_ms=_source_ms(item, by_name),
                ),
            )
        )
    return reports


def _source_ms(item: Made, by_name: dict[str, dict[str, Any]]) -> float | None:
    """How long the same network takes in 32 bits, for those that calculate in 8."""
    calculates = item.source is not None and item.name.endswith(str(Method.INT8))
    return float(by_name[str(item.source)]["latency_p50_ms"]) if calculates else None
