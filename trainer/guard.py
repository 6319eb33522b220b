"""Around a run: whatever happens in it, an event says so, the exit code fits, and no half result stays."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from trainer import checkpoint
from trainer.contract import (
    CHECKPOINTS_DIR,
    COLD_BECAUSE,
    CONTROL_FILE,
    EVENTS_FILE,
    LAST_GOOD_FILE,
    MANIFEST_FILE,
    RESULT_DIR,
    BadSpec,
    Exit,
    Failure,
    RunSpec,
)
from trainer.control import Control, die_with_parent
from trainer.distributed import rank_from_environment
from trainer.events import Events
from trainer.failures import (
    PEER_ERRORS,
    RESERVE_FILE,
    Cancelled,
    Preempted,
    exit_code,
    explain,
    leave_note,
)
from trainer.memory import keep_freed
from trainer.usage import Usage

_RESERVE_BYTES = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where a run takes place, and with what it hears and speaks."""

    path: Path  # of its spec
    folder: Path
    events: Events
    control: Control
    spec: RunSpec | None = None  # once it is read: an error can then say what to change

    def read(self) -> str:
        """The spec as it lies there, or BadSpec."""
        try:
            return self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadSpec("", f"{self.path.name} cannot be read: {error}") from None


def guarded(path: Path, act: Callable[[Stage], None]) -> int:
    """Do what is to be done with the spec at `path`; returns what the process is to end with."""
    die_with_parent()
    keep_freed()
    path = path.resolve()
    folder, rank = path.parent, rank_from_environment()
    leads = rank == 0
    control = Control(folder / CONTROL_FILE)
    control.listen()
    events = Events(folder / EVENTS_FILE if leads else None, usage=Usage(gpus=True) if leads else None)
    stage = Stage(path=path, folder=folder, events=events, control=control)
    try:
        if leads:
            _clean_start(folder)
            events.state("starting")
            if because := os.environ.get(COLD_BECAUSE):
                events.log(f"Started by torchrun: {because}.")
        act(stage)
        events.flush()
    except Cancelled:
        events.state("cancelled")
        return Exit.CANCELLED
    except Preempted:
        events.state("preempted")
        return Exit.PREEMPTED
    except Exception as error:
        return _report(error, stage, rank)
    finally:
        if leads:
            (folder / RESERVE_FILE).unlink(missing_ok=True)
        events.close()
    return Exit.OK


def _clean_start(folder: Path) -> None:
    (folder / RESERVE_FILE).write_bytes(b"\0" * _RESERVE_BYTES)
    checkpoint.clear_leftovers(folder / CHECKPOINTS_DIR)
    for left in (MANIFEST_FILE, LAST_GOOD_FILE):
        (folder / RESULT_DIR / left).unlink(missing_ok=True)
    for note in folder.glob(f"{PEER_ERRORS}-*"):
        note.unlink(missing_ok=True)


def _report(error: Exception, stage: Stage, rank: int) -> int:
    """Tell the first cause. Only rank 0 speaks, so the others leave a note that it reads."""
    folder = stage.folder
    reason, text = explain(error, stage.spec)
    trace = traceback.format_exc()
    print(trace, file=sys.stderr)
    if rank != 0:
        leave_note(folder, rank, reason, text, trace)
        return exit_code(reason)
    if reason is Failure.CRASHED and dist.is_available() and dist.is_initialized():
        reason, text, trace = _first_cause(folder, reason, text, trace)
    (folder / RESERVE_FILE).unlink(missing_ok=True)
    stage.events.error(reason, text, trace)
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
