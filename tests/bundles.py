"""Tiny models made by hand, for tests that need a real one and no training. No Django here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trainer.bundle import write_bundle
from trainer.contract import Recipe
from trainer.data import words

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
