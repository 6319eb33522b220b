"""Checkpoints: whole or absent. Written beside, synced, renamed; read only if every checksum holds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from trainer.contract import SAFETENSORS_FILE, RunSpec
from trainer.files import sync_folder, write_durably

OPTIMIZER_FILE = "optimizer.pt"
STATE_FILE = "state.json"  # written last; holds the checksums of the other two
KEEP = 2
_NAME = re.compile(r"^step-(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]  # {"optimizer": ..., "scaler": ...}


class Unusable(ValueError):
    """This folder is not a whole checkpoint of this run."""


def fingerprint(spec: RunSpec) -> str:
    """What must be the same for a checkpoint to be of use: all that shapes the training, nothing else."""
    parts = [spec.recipe, spec.data, spec.hyperparameters]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def save_checkpoint(
    root: Path, *, step: int, weights: dict[str, Tensor], optimizer: dict[str, Any], spec: RunSpec, world: int
) -> Path:
    """Write one checkpoint so that a crash at any moment leaves the previous one or this one."""
    root.mkdir(exist_ok=True)
    final, beside = root / f"step-{step}", root / f".step-{step}.{os.getpid()}"
    beside.mkdir()
    try:
        buffer = io.BytesIO()
        torch.save(optimizer, buffer)
        files = {
            # through memory, so that a full disk is an OSError and not a library's own error
            SAFETENSORS_FILE: safetensors.torch.save({k: v.contiguous().cpu() for k, v in weights.items()}),
            OPTIMIZER_FILE: buffer.getvalue(),
        }
        for name, content in files.items():
            write_durably(beside / name, content)
        state = {
            "step": step,
            "fingerprint": fingerprint(spec),
            "world": world,
            "torch": str(torch.__version__),
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        write_durably(beside / STATE_FILE, json.dumps(state, indent=2).encode())
        sync_folder(beside)
        if final.exists():
            shutil.rmtree(final)
        beside.rename(final)
        sync_folder(root)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for old in list(_newest_first(root))[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_newest(root: Path, spec: RunSpec, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; a broken one is named and the one before it is tried."""
    for folder in _newest_first(root):
        try:
            return _load(folder, spec)
        except Unusable as error:
            warn(f"Checkpoint {folder.name} is left out: {error}.")
    return None


def clear_leftovers(root: Path) -> None:
    """Remove what a killed process was writing. For rank 0 at the start only."""
    for path in root.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _load(folder: Path, spec: RunSpec) -> Checkpoint:
    try:
        state = json.loads((folder / STATE_FILE).read_text())
        files = {name: (folder / name).read_bytes() for name in (SAFETENSORS_FILE, OPTIMIZER_FILE)}
        checksums, step = dict(state["sha256"]), int(state["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unusable(f"it is not complete ({error})") from None
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != checksums.get(name):
            raise Unusable(f"{name} does not match its checksum")
    if state.get("fingerprint") != fingerprint(spec):
        raise Unusable("it was made with another recipe, data or hyperparameters")
    optimizer = torch.load(io.BytesIO(files[OPTIMIZER_FILE]), map_location="cpu", weights_only=True)
    return Checkpoint(step=step, weights=safetensors.torch.load(files[SAFETENSORS_FILE]), optimizer=optimizer)


def _newest_first(root: Path) -> Iterator[Path]:
    found = [(int(match[1]), path) for path in root.glob("step-*") if (match := _NAME.match(path.name))]
    for _, path in sorted(found, reverse=True):
        yield path
