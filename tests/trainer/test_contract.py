"""A run spec is read back whole, or refused by the name of its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainer.contract import (
    BadSpec,
    DataSpec,
    EarlyStopping,
    Method,
    Precision,
    Recipe,
    RunSpec,
    TrainingSpec,
)

GOOD = RunSpec(
    run_id="r1",
    recipe=Recipe.TABULAR,
    data=DataSpec(path="data/table.csv", format="csv", label="y", features=("a", "b")),
    training=TrainingSpec(early_stopping=EarlyStopping()),
)


def changed(pointer: str, value: Any) -> str:
    raw = json.loads(GOOD.to_json())
    *way, last = pointer.strip("/").split("/")
    place = raw
    for name in way:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(raw)


def test_a_spec_survives_the_way_to_json_and_back() -> None:
    assert RunSpec.from_json(GOOD.to_json()) == GOOD
    assert GOOD.resources.precision is Precision.FP32
    assert GOOD.compression.methods == (Method.INT8, Method.PRUNE)


def test_a_spec_without_training_trains_as_before() -> None:
    raw = json.loads(GOOD.to_json())
    del raw["training"]
    assert RunSpec.from_json(json.dumps(raw)).training == TrainingSpec()


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/schema", 2),
        ("/run_id", ...),
        ("/recipe", ...),
        ("/recipe", "poetry"),
        ("/data/path", ...),
        ("/data/path", "../secrets"),
        ("/data/path", "/etc/passwd"),
        ("/data/format", "parquet"),
        ("/data/colour", "red"),
        ("/surprise", 1),
        ("/hyperparameters/epochs", 0),
        ("/hyperparameters/epochs", "ten"),
        ("/hyperparameters/epochs", True),
        ("/hyperparameters/batch_size", 0),
        ("/hyperparameters/learning_rate", 0),
        ("/hyperparameters/learning_rate", float("nan")),
        ("/hyperparameters/optimizer", "magic"),
        ("/hyperparameters/holdout", 1),
        ("/hyperparameters/seed", -1),
        ("/resources/processes", 0),
        ("/resources/precision", "fp7"),
        ("/resources", []),
        ("/compression/methods", ["sorcery"]),
        ("/compression/max_accuracy_drop", 2),
        ("/compression/sparsity", 1),
        ("/training", 3),
        ("/training/schedule", "staircase"),
        ("/training/compile", True),
        ("/training/clip_norm", 0),
        ("/training/clip_norm", "short"),
        ("/training/warmup_steps", -1),
        ("/training/warmup_steps", 1.5),
        ("/training/grad_accumulation", "many"),
        ("/training/grad_accumulation", 0),
        ("/training/grad_accumulation", True),
        ("/training/checkpoint_every_s", 0),
        ("/training/checkpoint_every_steps", 0),
        ("/training/keep_checkpoints", 0),
        ("/training/stall_after_s", 0),
        ("/training/mood", "good"),
        ("/training/early_stopping", True),
        ("/training/early_stopping/patience", 0),
        ("/training/early_stopping/metric", "train/loss"),
        ("/training/early_stopping/mood", 1),
    ],
)
def test_a_wrong_field_is_refused_by_its_pointer(pointer: str, value: Any) -> None:
    with pytest.raises(BadSpec) as refused:
        RunSpec.from_json(changed(pointer, value))
    assert refused.value.pointer == pointer


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_what_is_no_object_is_no_spec(text: str) -> None:
    with pytest.raises(BadSpec):
        RunSpec.from_json(text)
