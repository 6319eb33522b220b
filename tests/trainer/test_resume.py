"""A run goes on from its last checkpoint to the same end, whoever died and however many ranks there are now."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.helpers import (
    children,
    engine,
    events,
    losses,
    phases,
    rank_of,
    start_engine,
    table_run,
    wait_for,
)
from trainer.contract import (
    CHECKPOINTS_DIR,
    EarlyStopping,
    EventKind,
    Exit,
    RunSpec,
    TrainingSpec,
)

pytestmark = pytest.mark.slow
OFTEN = TrainingSpec(checkpoint_every_steps=4)
EPOCHS, ROWS, BATCH = 30, 300, 16


def numbers_run(folder: Path, training: TrainingSpec = OFTEN, **options) -> Path:
    """Three clouds of points: quick to read, and the network has dropout."""
    dice = np.random.default_rng(3)
    kinds = dice.integers(0, 3, ROWS)
    points = dice.normal(size=(ROWS, 4)) + kinds[:, None]
    rows = [[*(f"{x:.4f}" for x in row), f"k{kind}"] for row, kind in zip(points, kinds, strict=True)]
    options = {"epochs": EPOCHS, "batch_size": BATCH, **options}
    path = table_run(folder, ["a", "b", "c", "d", "kind"], rows, "kind", **options)
    spec = replace(RunSpec.from_json(path.read_text()), training=training)
    path.write_text(spec.to_json())
    return path


def weights(spec: Path) -> bytes:
    newest = max((spec.parent / CHECKPOINTS_DIR).iterdir(), key=lambda path: int(path.name.split("-")[1]))
    return (newest / "model.safetensors").read_bytes()


def said(spec: Path) -> list[str]:
    return [event.data["text"] for event in events(spec, EventKind.LOG)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks, never interrupted."""
    spec = numbers_run(tmp_path_factory.mktemp("whole"), processes=2)
    assert engine(spec, "train", processes=2).returncode == 0
    return spec


def rank(number: int) -> Callable[[int], int]:
    def find(agent: int) -> int:
        (pid,) = [pid for pid in children(agent) if rank_of(pid) == number and not children(pid)]
        return pid

    return find


@pytest.mark.chaos
@pytest.mark.parametrize("victim", [rank(0), rank(1), lambda agent: agent], ids=["rank 0", "rank 1", "agent"])
def test_after_a_kill_the_losses_and_weights_are_those_of_a_run_that_was_left_alone(
    victim: Callable[[int], int], whole: Path, tmp_path: Path
) -> None:
    spec = numbers_run(tmp_path, processes=2)
    process = start_engine(spec, "train", processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    os.kill(victim(process.pid), signal.SIGKILL)
    assert process.wait(timeout=40) != 0
    assert "done" not in phases(spec)
    assert engine(spec, "train", processes=2).returncode == 0
    assert any("Going on from the checkpoint" in text for text in said(spec))
    assert losses(spec) == losses(whole)  # `losses` also refuses a step that is told twice with two values
    assert weights(spec) == weights(whole)


@pytest.mark.chaos
def test_two_ranks_then_one_then_two_learn_the_same_to_the_last_bit(whole: Path, tmp_path: Path) -> None:
    spec = numbers_run(tmp_path, processes=2)
    for processes in (2, 1):
        told = len(events(spec, EventKind.CHECKPOINT))
        process = start_engine(spec, "train", processes=processes)
        wait_for(lambda told=told: len(events(spec, EventKind.CHECKPOINT)) > told + 1, what="a checkpoint")
        process.kill()
        process.wait(timeout=20)
        assert "done" not in phases(spec)
    assert engine(spec, "train", processes=2).returncode == 0
    assert any("asks for 2 processes, 1 were started" in text for text in said(spec))
    assert losses(spec) == losses(whole)
    assert weights(spec) == weights(whole)


def test_a_batch_in_pieces_learns_what_the_whole_batch_learns(tmp_path: Path) -> None:
    """The last rows of an epoch are fewer than the pieces; dropout is off, for it differs by piece."""
    from torch import nn

    from trainer.control import Control
    from trainer.events import Events
    from trainer.prepare import Run, prepare
    from trainer.stepper import Stepper

    spec = numbers_run(tmp_path)
    run = Run(
        folder=tmp_path,
        spec=RunSpec.from_json(spec.read_text()),
        events=Events(None),
        control=Control(tmp_path / "none"),
    )
    prepared = prepare(run)
    import torch

    from trainer.contract import Precision
    from trainer.distributed import Gang

    after = []
    for pieces in (1, 4):
        torch.manual_seed(0)
        network = nn.Linear(prepared.encoded.shape[1], 3)
        stepper = Stepper(
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            prepared=prepared,
            gang=Gang(rank=0, world=1, device=torch.device("cpu")),
            precision=Precision.FP32,
            seed=1,
            pieces=pieces,
        )
        shown = [float(stepper.step(prepared.split.train[:size], step)) for step, size in enumerate((16, 3))]
        after.append((network.weight.detach().clone(), shown))
    (one, first), (many, second) = after
    assert torch.allclose(one, many, atol=1e-6)
    assert first == pytest.approx(second, abs=1e-6)


def test_gradients_are_cut_to_the_longest_allowed(tmp_path: Path) -> None:
    spec = numbers_run(tmp_path, TrainingSpec(clip_norm=1e-9, schedule="constant"), epochs=2, optimizer="sgd")
    assert engine(spec, "train").returncode == 0
    values = [event.data["value"] for event in events(spec, EventKind.METRIC)
              if event.data["name"] == "val/loss"]  # fmt: skip
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_early_stopping_ends_the_run_keeps_the_best_and_stays_ended(tmp_path: Path) -> None:
    early = TrainingSpec(
        early_stopping=EarlyStopping(metric="val/loss", patience=2), schedule="constant", warmup_steps=0
    )
    spec = numbers_run(tmp_path, early, epochs=200, learning_rate=0.02)
    assert engine(spec, "run").returncode == 0
    shown = {event.data["step"]: event.data["value"] for event in events(spec, EventKind.METRIC)
             if event.data["name"] == "val/loss"}  # fmt: skip
    per_epoch = min(shown)
    best = min(shown, key=lambda step: (shown[step], step))
    assert max(shown) == best + 2 * per_epoch
    assert max(shown) < 200 * per_epoch
    assert f"The best weights are those of step {best}." in said(spec)
    assert (spec.parent / CHECKPOINTS_DIR / f"step-{best}").is_dir()
    manifest = json.loads((spec.parent / "result" / "manifest.json").read_text())
    assert manifest["steps"] == max(shown)
    # the rows that chose the weights are neither those learned from nor those the model is judged by
    held = manifest["variants"][0]["holdout_rows"]
    aside = ROWS - held - manifest["rows_trained"]
    assert (held, aside) == (60, 24)
    assert f"{aside} rows are set aside to tell when to stop." in said(spec)

    told = len(losses(spec))
    assert engine(spec, "train").returncode == 0
    assert len(losses(spec)) == told


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor"])  # the runs above use AdamW
def test_every_optimizer_goes_on_after_sigterm_as_if_never_stopped(optimizer: str, tmp_path: Path) -> None:
    paused = numbers_run(tmp_path / "paused", optimizer=optimizer, epochs=15)
    process = start_engine(paused, "train")
    wait_for(lambda: events(paused, EventKind.CHECKPOINT), what="a checkpoint")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) in (Exit.PREEMPTED, Exit.OK)
    assert engine(paused, "train").returncode == 0
    alone = numbers_run(tmp_path / "alone", optimizer=optimizer, epochs=15)
    assert engine(alone, "train").returncode == 0
    assert losses(paused) == losses(alone)
    assert weights(paused) == weights(alone)
