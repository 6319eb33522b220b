"""Runs for the benches of training: real data, the ways to start them, and what they have told."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from trainer.contract import (
    CHECKPOINTS_DIR,
    EVENTS_FILE,
    DataSpec,
    Event,
    EventKind,
    HyperParameters,
    Recipe,
    Resources,
    RunSpec,
    TrainingSpec,
    read_events,
)

HOME = Path(__file__).resolve().parents[1]
BATCH = 64


def digits_run(folder: Path, *, processes: int, epochs: int) -> Path:
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / "data" / "images" / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(path)
    spec = RunSpec(
        run_id="bench",
        recipe=Recipe.IMAGE,
        data=DataSpec(path="data/images", format="images"),
        hyperparameters=HyperParameters(epochs=epochs, batch_size=BATCH),
        resources=Resources(processes=processes),
    )
    (folder / "spec.json").write_text(spec.to_json())
    return folder / "spec.json"


def points_run(folder: Path, *, epochs: int) -> Path:
    """A small table: quick to read, and its network has dropout."""
    dice = np.random.default_rng(3)
    kinds = dice.integers(0, 3, 600)
    points = dice.normal(size=(600, 4)) + kinds[:, None]
    lines = ["a,b,c,d,kind"]
    lines += [",".join(f"{x:.4f}" for x in row) + f",k{k}" for row, k in zip(points, kinds, strict=True)]
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "table.csv").write_text("\n".join(lines) + "\n")
    spec = RunSpec(
        run_id="bench",
        recipe=Recipe.TABULAR,
        data=DataSpec(path="data/table.csv", format="csv", label="kind"),
        hyperparameters=HyperParameters(epochs=epochs, batch_size=16),
        resources=Resources(processes=2),
    )
    spec = replace(spec, training=TrainingSpec(checkpoint_every_steps=10))
    (folder / "spec.json").write_text(spec.to_json())
    return folder / "spec.json"


def torchrun(module: str, ranks: int, words: list[str]) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost"]
    return [*start, "--nproc-per-node", str(ranks), "-m", module, *words]


def warm_run(parent: Path, spec: Path, ranks: int) -> list[str]:
    return [sys.executable, "-m", "trainer.warm", "run", str(parent), str(spec), str(ranks), "train"]


@contextlib.contextmanager
def warm_parent(folder: Path) -> Iterator[Path]:
    path = folder / "w.sock"
    command = [sys.executable, "-m", "trainer.warm", "serve", str(path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield path
        finally:
            process.kill()


def first_step_s(spec: Path, command: list[str]) -> float:
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=spec.parent, env=environment()) as process:
        while not told(spec, EventKind.METRIC):
            if process.poll() not in (None, 0):
                raise RuntimeError(f"the run ended with {process.returncode}")
            time.sleep(0.002)
        took = time.perf_counter() - began
        process.wait()
    return took


def told(spec: Path, kind: EventKind) -> list[Event]:
    return [event for event in read_events(spec.parent / EVENTS_FILE)[0] if event.kind is kind]


def losses(spec: Path) -> dict[int, float]:
    """Loss by step; NaN, equal to nothing, for a step that was told with two values."""
    found: dict[int, float] = {}
    for event in told(spec, EventKind.METRIC):
        if event.data["name"] == "train/loss":
            step, value = event.data["step"], event.data["value"]
            found[step] = value if found.get(step, value) == value else float("nan")
    return found


def last_weights(spec: Path) -> bytes:
    folders = (spec.parent / CHECKPOINTS_DIR).glob("step-*")
    newest = max(folders, key=lambda path: int(path.name.removeprefix("step-")))
    return (newest / "model.safetensors").read_bytes()


def environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    share = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**kept, **share, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
