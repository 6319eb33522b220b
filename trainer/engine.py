"""The phases of a run in order, and what the world hears when one fails."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from trainer import checkpoint
from trainer.compress.variants import finish
from trainer.contract import (
    CHECKPOINTS_DIR,
    COLD_BECAUSE,
    CONTROL_FILE,
    EVENTS_FILE,
    RESULT_DIR,
    BadSpec,
    Exit,
    Failure,
    Learns,
    RunSpec,
)
from trainer.control import Control, die_with_parent
from trainer.distributed import join_gang, leave_gang, rank_from_environment
from trainer.events import Events
from trainer.failures import (
    PEER_ERRORS,
    RESERVE_FILE,
    BadData,
    Cancelled,
    Preempted,
    exit_code,
    explain,
    leave_note,
    leave_now,
)
from trainer.loop import train
from trainer.memory import keep_freed
from trainer.prepare import Prepared, Run, prepare
from trainer.privacy import finish_privately, train_privately
from trainer.recipes import networks
from trainer.usage import Usage

__all__ = ["leave_now", "run_all", "run_compression", "run_training"]

_RESERVE_BYTES = 64 * 1024


def run_all(spec_path: Path) -> int:
    """Train, evaluate, compress, gate and export."""
    return _guarded(spec_path, _run_all)


def run_training(spec_path: Path) -> int:
    """Train only; the result is the last checkpoint."""
    return _guarded(spec_path, _run_training)


def run_compression(spec_path: Path) -> int:
    """Export, compress and measure what the last checkpoint holds."""
    return _guarded(spec_path, _run_compression)


def _run_all(run: Run) -> None:
    _phases(run, training=True, compression=True)


def _run_training(run: Run) -> None:
    _phases(run, training=True, compression=False)


def _run_compression(run: Run) -> None:
    _phases(run, training=False, compression=True)


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


def _guarded(spec_path: Path, phases: Callable[[Run], None]) -> int:
    """Run the phases; whatever happens, leave an event, a fitting exit code and no half result."""
    die_with_parent()
    keep_freed()
    spec_path = spec_path.resolve()
    folder, rank = spec_path.parent, rank_from_environment()
    leads = rank == 0
    control = Control(folder / CONTROL_FILE)
    control.listen()
    events = Events(folder / EVENTS_FILE if leads else None, usage=Usage(gpus=True) if leads else None)
    spec: RunSpec | None = None
    try:
        if leads:
            _clean_start(folder)
            events.state("starting")
            if because := os.environ.get(COLD_BECAUSE):
                events.log(f"Started by torchrun: {because}.")
        spec = read_spec(spec_path)
        phases(Run(folder=folder, spec=spec, events=events, control=control))
        events.flush()
    except Cancelled:
        events.state("cancelled")
        return Exit.CANCELLED
    except Preempted:
        events.state("preempted")
        return Exit.PREEMPTED
    except Exception as error:
        return _report(error, folder, rank, events, spec)
    finally:
        if leads:
            (folder / RESERVE_FILE).unlink(missing_ok=True)
        events.close()
    return Exit.OK


def read_spec(path: Path) -> RunSpec:
    try:
        return RunSpec.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadSpec("", f"{path.name} cannot be read: {error}") from None


def _clean_start(folder: Path) -> None:
    (folder / RESERVE_FILE).write_bytes(b"\0" * _RESERVE_BYTES)
    checkpoint.clear_leftovers(folder / CHECKPOINTS_DIR)
    (folder / RESULT_DIR / "manifest.json").unlink(missing_ok=True)
    for note in folder.glob(f"{PEER_ERRORS}-*"):
        note.unlink(missing_ok=True)


def _report(error: Exception, folder: Path, rank: int, events: Events, spec: RunSpec | None) -> int:
    """Tell the first cause. Only rank 0 speaks, so the others leave a note that it reads."""
    reason, text = explain(error, spec)
    trace = traceback.format_exc()
    print(trace, file=sys.stderr)
    if rank != 0:
        leave_note(folder, rank, reason, text, trace)
        return exit_code(reason)
    if reason is Failure.CRASHED and dist.is_available() and dist.is_initialized():
        reason, text, trace = _first_cause(folder, reason, text, trace)
    (folder / RESERVE_FILE).unlink(missing_ok=True)
    events.error(reason, text, trace)
    return exit_code(reason)


def _first_cause(folder: Path, reason: Failure, text: str, trace: str) -> tuple[Failure, str, str]:
    """A rank that dies breaks rank 0's connection: look whether it said why."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        notes = sorted(folder.glob(f"{PEER_ERRORS}-*"), key=lambda path: path.stat().st_mtime)
        if notes:
            said = json.loads(notes[0].read_text())
            return Failure(said["reason"]), said["text"], said["traceback"]
        time.sleep(0.1)
    if "onnection" in text or "NCCL" in text:
        text = f"Another process of this run was killed or lost ({text}); its machine may be out of memory."
        reason = Failure.KILLED
    return reason, text, trace
