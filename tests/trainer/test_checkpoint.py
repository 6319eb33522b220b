"""A checkpoint is whole or it does not exist; a broken one is named and the one before it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import clear_leftovers, load_newest, save_checkpoint
from trainer.contract import DataSpec, HyperParameters, Recipe, RunSpec

SPEC = RunSpec(run_id="r", recipe=Recipe.IMAGE, data=DataSpec(path="data/images", format="images"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def save(root: Path, step: int) -> Path:
    return save_checkpoint(
        root,
        step=step,
        weights={"w": torch.full((3,), float(step))},
        optimizer={"optimizer": {"step": step}, "scaler": {}},
        spec=SPEC,
        world=1,
    )


def test_the_newest_two_are_kept_and_the_newest_is_loaded(root: Path) -> None:
    for step in (9, 10, 100):
        save(root, step)
    assert sorted(path.name for path in root.iterdir()) == ["step-10", "step-100"]
    found = load_newest(root, SPEC, pytest.fail)
    assert found is not None
    assert found.step == 100
    assert found.weights["w"].tolist() == [100.0] * 3
    assert found.optimizer["optimizer"] == {"step": 100}


@pytest.mark.parametrize("victim", ["model.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_broken_one_is_named_and_the_one_before_is_loaded(root: Path, victim: str, harm: str) -> None:
    save(root, 1)
    path = save(root, 2) / victim
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 0x40
    if harm == "cut":
        del content[len(content) // 2 :]
    path.write_bytes(content)
    if harm == "remove":
        path.unlink()
    warnings: list[str] = []
    found = load_newest(root, SPEC, warnings.append)
    assert found is not None
    assert found.step == 1
    assert len(warnings) == 1
    assert "step-2" in warnings[0]


def test_a_checkpoint_of_other_hyperparameters_is_not_used(root: Path) -> None:
    save(root, 1)
    other = replace(SPEC, hyperparameters=HyperParameters(seed=8))
    warnings: list[str] = []
    assert load_newest(root, other, warnings.append) is None
    assert "hyperparameters" in warnings[0]


def test_what_a_killed_process_was_writing_is_never_read_and_swept_away(root: Path) -> None:
    save(root, 1).rename(root / ".step-5.123")
    assert load_newest(root, SPEC, pytest.fail) is None
    clear_leftovers(root)
    assert not list(root.iterdir())


def test_saving_the_same_step_again_replaces_it(root: Path) -> None:
    save(root, 3)
    save(root, 3)
    assert [path.name for path in root.iterdir()] == ["step-3"]
