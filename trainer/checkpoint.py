"""Checkpoints: whole or absent. Written beside, synced, renamed; read only if every checksum holds."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from trainer.contract import SAFETENSORS_FILE, RunSpec
from trainer.files import replace_atomically, sync_folder, write_durably

LAYOUT = 2  # of networks and splits: raised where those of before do not fit any more
OPTIMIZER_FILE = "optimizer.pt"
STATE_FILE = "state.json"  # written last; holds the checksums of the other two
_NAME = re.compile(r"^step-(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]  # {"optimizer": ..., "scaler": ...}
    progress: dict[str, Any] = field(default_factory=dict)  # {"epoch", "cursor", "quality", "stopping"}


class Unusable(ValueError):
    """This folder is not a whole checkpoint of this run."""


def fingerprint(spec: RunSpec) -> str:
    """What must be the same for a checkpoint to be of use: all that shapes the training, nothing else."""
    training = spec.training
    loop = (training.schedule, training.warmup_steps, training.clip_norm)
    watches = training.early_stopping is not None  # it sets rows aside, so the others come in another order
    parts = [LAYOUT, spec.recipe, spec.data, spec.hyperparameters, loop, watches]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def frozen(weights: dict[str, Tensor], optimizer: dict[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint as bytes, which training on does not change.

    Through memory also so that a full disk is an OSError and not a library's own error.
    """
    buffer = io.BytesIO()
    torch.save(optimizer, buffer)
    return {
        SAFETENSORS_FILE: safetensors.torch.save({k: v.contiguous().cpu() for k, v in weights.items()}),
        OPTIMIZER_FILE: buffer.getvalue(),
    }


def save_checkpoint(
    root: Path,
    *,
    step: int,
    weights: dict[str, Tensor],
    optimizer: dict[str, Any],
    spec: RunSpec,
    world: int,
    progress: Mapping[str, Any] | None = None,
) -> Path:
    """Freeze and write in one go."""
    files = frozen(weights, optimizer)
    return write_checkpoint(root, step=step, files=files, spec=spec, world=world, progress=progress or {})


def write_checkpoint(
    root: Path,
    *,
    step: int,
    files: Mapping[str, bytes],
    spec: RunSpec,
    world: int,
    progress: Mapping[str, Any],
) -> Path:
    """Write one checkpoint so that a crash at any moment leaves the previous one or this one."""
    root.mkdir(exist_ok=True)
    final, beside = root / f"step-{step}", root / f".step-{step}.{os.getpid()}"
    beside.mkdir()
    try:
        for name, content in files.items():
            write_durably(beside / name, content)
        state = {
            "step": step,
            "progress": dict(progress),
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
    _forget_old(root, keep=spec.training.keep_checkpoints)
    return final


class Saver:
    """Writes checkpoints in a thread of its own, one at a time: the disk's time is not the loop's."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, write: Callable[[], None]) -> None:
        """Begin, once the one before is done. What went wrong with that one is raised here."""
        self.wait()

        def guarded() -> None:
            try:
                write()
            except BaseException as error:  # raised where somebody can act on it: in the loop
                self._error = error

        self._thread = threading.Thread(target=guarded, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.raise_error()

    def raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def load_newest(root: Path, spec: RunSpec, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; a broken one is named and the one before it is tried."""
    for folder in _newest_first(root):
        try:
            return _load(folder, spec)
        except Unusable as error:
            warn(f"Checkpoint {folder.name} is left out: {error}.")
    return None


def load_step(root: Path, step: int, spec: RunSpec) -> Checkpoint:
    """One certain checkpoint, or Unusable."""
    return _load(root / f"step-{step}", spec)


def load_best(root: Path, spec: RunSpec, warn: Callable[[str], None]) -> Checkpoint | None:
    """The whole checkpoint with the best measured quality; None when none was measured."""
    for folder in sorted(_newest_first(root), key=_quality, reverse=True):
        if _quality(folder) == -math.inf:
            return None
        try:
            return _load(folder, spec)
        except Unusable as error:
            warn(f"Checkpoint {folder.name} is left out: {error}.")
    return None


def last_good(root: Path, spec: RunSpec) -> Checkpoint | None:
    """The newest whole checkpoint whose weights are all numbers; None when there is none."""
    for folder in _newest_first(root):
        with contextlib.suppress(Unusable):
            found = _load(folder, spec)
            if all(bool(torch.isfinite(value).all()) for value in found.weights.values()):
                return found
    return None


def keep_weights(found: Checkpoint, path: Path, about: Mapping[str, str]) -> None:
    """Write the weights of a checkpoint as one safetensors file whose header says what they are."""
    path.parent.mkdir(exist_ok=True)
    weights = {name: value.contiguous() for name, value in found.weights.items()}
    header = {**about, "step": str(found.step)}
    replace_atomically(path, safetensors.torch.save(weights, metadata=header))


def clear_leftovers(root: Path) -> None:
    """Remove what a killed process was writing. For rank 0 at the start only."""
    for path in root.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def read_step(root: Path, step: int) -> dict[str, bytes]:
    """The files of one checkpoint, for a rank that cannot read them itself."""
    folder = root / f"step-{step}"
    return {name: (folder / name).read_bytes() for name in (STATE_FILE, SAFETENSORS_FILE, OPTIMIZER_FILE)}


def open_checkpoint(content: Mapping[str, bytes], spec: RunSpec) -> Checkpoint:
    """Check the files of one checkpoint against its checksums and this run; never opens a pickle."""
    try:
        state = json.loads(content[STATE_FILE])
        files = {name: content[name] for name in (SAFETENSORS_FILE, OPTIMIZER_FILE)}
        checksums, step = dict(state["sha256"]), int(state["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(f"it is not complete ({error})") from None
    for name, part in files.items():
        if hashlib.sha256(part).hexdigest() != checksums.get(name):
            raise Unusable(f"{name} does not match its checksum")
    if state.get("fingerprint") != fingerprint(spec):
        raise Unusable("it was made with another recipe, data or hyperparameters")
    optimizer = torch.load(io.BytesIO(files[OPTIMIZER_FILE]), map_location="cpu", weights_only=True)
    return Checkpoint(
        step=step,
        weights=safetensors.torch.load(files[SAFETENSORS_FILE]),
        optimizer=optimizer,
        progress=state.get("progress") or {},
    )


def _load(folder: Path, spec: RunSpec) -> Checkpoint:
    try:
        content = read_step(folder.parent, int(folder.name.removeprefix("step-")))
    except OSError as error:
        raise Unusable(f"it is not complete ({error})") from None
    return open_checkpoint(content, spec)


def _forget_old(root: Path, *, keep: int) -> None:
    """Delete all but the newest few and the best."""
    folders = list(_newest_first(root))
    best = max(folders, key=_quality)
    for old in folders[keep:]:
        if old != best or _quality(best) == -math.inf:
            shutil.rmtree(old, ignore_errors=True)


def _quality(folder: Path) -> float:
    """What validation said when it was saved, more is better; minus infinity when it was not measured."""
    try:
        said = json.loads((folder / STATE_FILE).read_text())["progress"]["quality"]
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf
    return -math.inf if said is None else float(said)


def _newest_first(root: Path) -> Iterator[Path]:
    found = [(int(match[1]), path) for path in root.glob("step-*") if (match := _NAME.match(path.name))]
    for _, path in sorted(found, reverse=True):
        yield path
