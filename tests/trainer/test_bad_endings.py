"""How a run that cannot go on ends: with its reason, what to change, and what is still of use."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.helpers import engine, events, losses
from tests.trainer.test_resume import OFTEN, numbers_run, said, weights
from trainer.checkpoint import last_good_step, load_newest, save_checkpoint
from trainer.contract import CHECKPOINTS_DIR, EventKind, Failure, RunSpec, TrainingSpec

pytestmark = pytest.mark.slow


def test_a_run_that_diverges_names_the_last_checkpoint_whose_weights_are_numbers(tmp_path: Path) -> None:
    how = TrainingSpec(checkpoint_every_steps=1, keep_checkpoints=50, schedule="constant", warmup_steps=0)
    spec = numbers_run(tmp_path, how, optimizer="sgd", learning_rate=1e12, epochs=20)
    assert engine(spec, "train").returncode != 0
    (error,) = events(spec, EventKind.ERROR)
    assert error.data["reason"] == Failure.DIVERGED
    told = RunSpec.from_json(spec.read_text())
    good = last_good_step(tmp_path / CHECKPOINTS_DIR, told)
    last = "No checkpoint was written before." if good is None else f"The last good checkpoint: step {good}."
    assert error.data["text"].endswith(last)
    assert "try a smaller learning_rate than 1e+12" in error.data["text"]


def test_a_checkpoint_of_weights_that_are_no_numbers_is_not_called_good(tmp_path: Path) -> None:
    import torch

    told = RunSpec.from_json(numbers_run(tmp_path).read_text())
    told = replace(told, training=replace(told.training, keep_checkpoints=5))
    root = tmp_path / CHECKPOINTS_DIR
    assert last_good_step(root, told) is None
    for step, value in ((3, 1.0), (5, 2.0), (7, np.inf), (9, np.nan)):
        weights = {"w": torch.full((2,), value)}
        save_checkpoint(root, step=step, weights=weights, optimizer={}, spec=told, world=1)
    assert last_good_step(root, told) == 5
    newest = load_newest(root, told, pytest.fail)
    assert newest is not None and newest.step == 9


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_leads_to_the_same_end(tmp_path: Path) -> None:
    whole = numbers_run(tmp_path / "whole", OFTEN, epochs=4)
    assert engine(whole, "train").returncode == 0
    spec = numbers_run(tmp_path / "hurt", OFTEN, epochs=4)
    assert engine(spec, "train").returncode == 0
    folders = sorted(
        (spec.parent / CHECKPOINTS_DIR).iterdir(), key=lambda path: int(path.name.removeprefix("step-"))
    )
    newest = folders[-1]
    file = newest / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    assert engine(spec, "train").returncode == 0
    text = f"Checkpoint {newest.name} is left out: model.safetensors does not match its checksum."
    assert text in said(spec)
    assert any(f"step {folders[-2].name.removeprefix('step-')} of" in line for line in said(spec))
    assert losses(spec) == losses(whole)
    assert weights(spec) == weights(whole)


def test_a_run_without_a_whole_checkpoint_begins_again_and_says_which_were_left_out(tmp_path: Path) -> None:
    spec = numbers_run(tmp_path, OFTEN, epochs=2)
    assert engine(spec, "train").returncode == 0
    before = weights(spec)
    for folder in (spec.parent / CHECKPOINTS_DIR).iterdir():
        (folder / "state.json").write_text("{")
    assert engine(spec, "train").returncode == 0
    assert sum("is left out: it is not complete" in text for text in said(spec)) >= 1
    assert weights(spec) == before
    shutil.rmtree(spec.parent / CHECKPOINTS_DIR)
