"""The phases of a run in order, and what the world hears when one fails."""

from __future__ import annotations

from pathlib import Path

from trainer import checkpoint
from trainer.compress.variants import finish
from trainer.contract import CHECKPOINTS_DIR, Learns, RunSpec
from trainer.distributed import join_gang, leave_gang
from trainer.failures import BadData, leave_now
from trainer.guard import Stage, guarded
from trainer.loop import train
from trainer.prepare import Prepared, Run, prepare
from trainer.privacy import finish_privately, train_privately
from trainer.recipes import networks

__all__ = ["leave_now", "run_all", "run_compression", "run_training"]


def run_all(spec_path: Path) -> int:
    """Train, evaluate, compress, gate and export."""
    return _run(spec_path, training=True, compression=True)


def run_training(spec_path: Path) -> int:
    """Train only; the result is the last checkpoint."""
    return _run(spec_path, training=True, compression=False)


def run_compression(spec_path: Path) -> int:
    """Export, compress and measure what the last checkpoint holds."""
    return _run(spec_path, training=False, compression=True)


def _run(spec_path: Path, *, training: bool, compression: bool) -> int:
    def act(stage: Stage) -> None:
        stage.spec = RunSpec.from_json(stage.read())
        run = Run(folder=stage.folder, spec=stage.spec, events=stage.events, control=stage.control)
        _phases(run, training=training, compression=compression)

    return guarded(spec_path, act)


def _phases(run: Run, *, training: bool, compression: bool) -> None:
    spec = run.spec
    gang = join_gang(gpus=spec.resources.gpus)
    if gang.world != spec.resources.processes:
        fewest = spec.resources.min_processes or spec.resources.processes
        run.events.log(
            f"The spec asks for {spec.resources.processes} processes, {gang.world} were started.",
            level="info" if gang.world >= fewest else "warning",
        )
    prepared = prepare(run)
    if gang.leads:
        held = len(prepared.split.holdout)
        run.events.log(
            f"{len(prepared.split.train):,} rows to train on, {held:,} held out, "
            f"{_what(prepared)}; "
            f"{gang.world} {'process' if gang.world == 1 else 'processes'} on {gang.device.type}."
        )
    network = networks.build(
        spec.recipe, prepared.transform, len(prepared.classes), seed=spec.hyperparameters.seed
    )
    network = network.to(gang.device)
    private = spec.training.privacy_epsilon is not None
    if training:
        run.events.state("training")
        learn = train_privately if private else train
        steps = learn(run, prepared, network, gang)
    else:
        load = checkpoint.load_best if spec.training.early_stopping else checkpoint.load_newest
        found = load(run.folder / CHECKPOINTS_DIR, spec, lambda text: run.events.log(text))
        if found is None:
            raise BadData("There is no whole checkpoint of this run to compress: train first.")
        network.load_state_dict(found.weights)
        steps = found.step
    leave_gang(gang)
    if not gang.leads:
        return
    if compression:
        if private:
            finish_privately(run, prepared, network, gang, steps=steps)
        else:
            finish(run, prepared, network, gang, steps=steps)
    run.events.state("done")


def _what(prepared: Prepared) -> str:
    """How much there is to tell apart, in the recipe's own words."""
    count = f"{len(prepared.classes):,}"
    return {
        Learns.NUMBER: "one number to predict",
        Learns.RANKING: f"{count} items to rank",
        Learns.TEXT: f"{count} characters known",
    }.get(prepared.recipe.TASK.learns, f"{len(prepared.classes)} classes")
