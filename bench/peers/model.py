"""The model all of them serve, and the words they speak. Imports only what every peer's venv holds."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime


def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
    )


def run(model: onnxruntime.InferenceSession, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return model.run(["probabilities"], {"image": rows.reshape(-1, 1, 8, 8)})[0]


def rows_of(body: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(body["inputs"][0]["data"], dtype=np.float32).reshape(-1, 64)


def answer_of(probabilities: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {
        "model_name": "digits",
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": list(probabilities.shape),
                "data": probabilities.ravel().tolist(),
            }
        ],
    }


def port() -> int:
    return int(os.environ["BENCH_PORT"])
