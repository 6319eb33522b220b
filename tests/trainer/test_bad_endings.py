"""How a run that cannot go on ends: with its reason, what to change, and what is still of use."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.trainer.helpers import engine, events, losses
from tests.trainer.test_resume import OFTEN, numbers_run, said, weights
from trainer.checkpoint import last_good, load_newest, save_checkpoint
from trainer.contract import (
    CHECKPOINTS_DIR,
    LAST_GOOD_FILE,
    RESULT_DIR,
    EventKind,
    Failure,
    RunSpec,
    TrainingSpec,
)
from trainer.recipes import networks

pytestmark = pytest.mark.slow


def test_a_run_that_diverges_keeps_the_last_weights_that_are_numbers(tmp_path: Path) -> None:
    how = TrainingSpec(checkpoint_every_steps=1, keep_checkpoints=50, schedule="constant", warmup_steps=0)
    spec = numbers_run(tmp_path, how, optimizer="sgd", learning_rate=1e12, epochs=20)
    assert engine(spec, "train").returncode != 0
    (error,) = events(spec, EventKind.ERROR)
    assert error.data["reason"] == Failure.DIVERGED
    assert "try a smaller learning_rate than 1e+12" in error.data["text"]
    told = RunSpec.from_json(spec.read_text())
    good = last_good(tmp_path / CHECKPOINTS_DIR, told)
    assert good is not None, "the first steps of this run are numbers still"
    assert error.data["text"].endswith(f"The last good checkpoint: step {good.step}.")
    with safe_open(tmp_path / RESULT_DIR / LAST_GOOD_FILE, framework="np") as kept:
        header = kept.metadata()
        weights_kept = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118  it is no dict
    assert (header["step"], header["recipe"]) == (str(good.step), told.recipe)
    assert all(np.isfinite(value).all() for value in weights_kept.values())
    network = networks.build(
        told.recipe, json.loads(header["transform"]), len(json.loads(header["classes"])), seed=1
    )
    assert {name: value.shape for name, value in weights_kept.items()} == {
        name: tuple(value.shape) for name, value in network.state_dict().items()
    }


def test_a_run_that_diverges_at_once_has_no_weights_to_keep(tmp_path: Path) -> None:
    how = TrainingSpec(checkpoint_every_s=1e6, schedule="constant", warmup_steps=0)
    spec = numbers_run(tmp_path, how, optimizer="sgd", learning_rate=1e30, epochs=2)
    assert engine(spec, "train").returncode != 0
    (error,) = events(spec, EventKind.ERROR)
    assert error.data["text"].endswith("No checkpoint was written before.")
    assert not (tmp_path / RESULT_DIR / LAST_GOOD_FILE).exists()


def test_a_checkpoint_of_weights_that_are_no_numbers_is_not_called_good(tmp_path: Path) -> None:
    import torch

    told = RunSpec.from_json(numbers_run(tmp_path).read_text())
    told = replace(told, training=replace(told.training, keep_checkpoints=5))
    root = tmp_path / CHECKPOINTS_DIR
    assert last_good(root, told) is None
    for step, value in ((3, 1.0), (5, 2.0), (7, np.inf), (9, np.nan)):
        weights = {"w": torch.full((2,), value)}
        save_checkpoint(root, step=step, weights=weights, optimizer={}, spec=told, world=1)
    good = last_good(root, told)
    assert good is not None and good.step == 5
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
