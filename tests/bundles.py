"""Tiny models made by hand, for tests that need a real one and no training. No Django here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trainer.bundle import write_bundle
from trainer.contract import Recipe
from trainer.data import Columns, words

WEATHER = ("cold", "warm")


def write_weather_bundle(folder: Path) -> Path:
    """A table model: warm above 10 degrees, and snow is always cold. Takes `degrees` and `sky`."""
    folder.mkdir(parents=True, exist_ok=True)
    # features: degrees scaled, degrees missing; sky missing, sky rare, snow, sun
    weights = np.zeros((6, 2), dtype=np.float32)
    weights[0] = (-2.0, 2.0)
    weights[4] = (40.0, 0.0)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "weather",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 6])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    write_bundle(
        folder,
        recipe_name=Recipe.TABULAR,
        variant="original",
        classes=WEATHER,
        transform={
            "columns": [
                {"name": "degrees", "kind": "number", "mean": 10.0, "scale": 5.0},
                {"name": "sky", "kind": "words", "words": ["snow", "sun"]},
            ]
        },
        sample={"degrees": np.asarray([12.5], dtype=np.float32), "sky": words(["sun"])},
    )
    return folder


ITEMS = tuple(f"film{number:02}" for number in range(24))


def write_films_bundle(folder: Path) -> Path:
    """A recommender that likes film00 most, then film01; it knows Ana, who has had film00 already."""
    table = np.zeros((len(ITEMS) + 2, len(ITEMS)), dtype=np.float32)
    table[:] = np.linspace(1.0, 0.5, len(ITEMS))
    transform = {"items": list(ITEMS), "users": ["ana"], "liked": [[0]], "words": [], "buckets": 1}
    columns = {"user": words(["ana"]), "liked": words([""])}
    return _write_lookup(folder, table, Recipe.RECOMMEND, ITEMS, transform, columns)


def write_writer_bundle(folder: Path) -> Path:
    """A language model that only ever says a."""
    classes = ("pad", "start", "unknown", "a", "b")
    table = np.zeros((len(classes), len(classes)), dtype=np.float32)
    table[:, 3] = 1.0
    transform = {"characters": "ab", "context": 8}
    return _write_lookup(folder, table, Recipe.LANGUAGE, classes, transform, {"text": words(["ab"])})


def _write_lookup(
    folder: Path,
    table: np.ndarray,
    recipe: Recipe,
    classes: tuple[str, ...],
    transform: dict[str, Any],
    sample: Columns,
) -> Path:
    """A graph whose answer is the mean of the rows of a table that the ids name."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["found"], axis=0),
            helper.make_node("ReduceMean", ["found"], ["probabilities"], axes=[1], keepdims=0),
        ],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "length"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", table.shape[1]])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    write_bundle(
        folder, recipe_name=recipe, variant="original", classes=classes, transform=transform, sample=sample
    )
    return folder
