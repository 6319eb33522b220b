"""Why a run ends early: the errors the engine raises, and what any other error means for the user."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

from trainer.contract import BadSpec, Exit, Failure, RunSpec
from trainer.files import replace_atomically

RESERVE_FILE = ".reserve"  # room for the last words on a full disk
PEER_ERRORS = ".peer-errors"
GRACE_FOR_RANK_0_S = 5.0


class BadData(ValueError):
    """The data cannot be learned from; the text names the file and the row."""


class Diverged(ArithmeticError):
    """The loss is no longer a number, so going on would only burn time."""


class Stalled(TimeoutError):
    """No step was finished for too long."""


class Cancelled(Exception):
    """control.json asked for a clean stop."""


class Preempted(Exception):
    """SIGTERM asked for the machine back; a checkpoint is on disk."""


def explain(error: BaseException, spec: RunSpec | None = None) -> tuple[Failure, str]:
    """Name the failure and say in one line what happened and what to do."""
    text = _last_line(error)
    if isinstance(error, BadSpec):
        return Failure.BAD_SPEC, text
    if isinstance(error, BadData):
        return Failure.BAD_DATA, text
    if isinstance(error, Diverged):
        return Failure.DIVERGED, text
    if isinstance(error, Stalled):
        return Failure.STALLED, text
    # By name: this file is also imported where torch must stay out.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
    ):
        return Failure.OUT_OF_MEMORY, f"{less_memory(spec)} ({text})" if text else less_memory(spec)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure.DISK_FULL, f"The disk is full: free some space and start the run again. ({text})"
    return Failure.CRASHED, text


def less_memory(spec: RunSpec | None) -> str:
    """What to change so that the same training fits."""
    if spec is None or spec.hyperparameters.batch_size < 2:
        return "Out of memory: lower batch_size, or ask for a machine with more memory."
    size, cut = spec.hyperparameters.batch_size, spec.training.grad_accumulation
    pieces = 2 * (cut if isinstance(cut, int) else 1)
    return (
        f"Out of memory at batch_size {size}: set grad_accumulation to {pieces}, which learns the same from "
        f"smaller pieces, or batch_size to {size // 2}."
    )


def exit_code(failure: Failure) -> int:
    """What the process ends with; see contract.Exit."""
    return {Failure.BAD_SPEC: Exit.BAD_SPEC, Failure.BAD_DATA: Exit.BAD_DATA}.get(failure, Exit.CRASHED)


def leave_note(folder: Path, rank: int, reason: Failure, text: str, trace: str) -> None:
    """What a rank other than 0 has to say: rank 0 reads it, for only rank 0 speaks."""
    note = json.dumps({"reason": reason, "text": text, "traceback": trace})
    replace_atomically(folder / f"{PEER_ERRORS}-{rank}", note.encode())


def leave_now(code: int) -> None:
    """End the process without waiting for peers: with one of them dead, a tidy goodbye could hang."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else ""
    if isinstance(error, BadSpec | BadData | Diverged | Stalled):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
