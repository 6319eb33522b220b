"""Tabular regression: the columns of `tabular`, and a number to predict instead of a class."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.contract import DataSpec
from trainer.data import Indices, Rows
from trainer.failures import BadData
from trainer.recipes import tabular
from trainer.tasks import REGRESSION as TASK

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "learn", "read", "signature"]

GRAPH_INPUT = tabular.GRAPH_INPUT
fit, signature, encode, batch = tabular.fit, tabular.signature, tabular.encode, tabular.batch
SPREAD = 3.0  # a target this many times more spread above its middle than below is learned as a logarithm


def read(folder: Path, data: DataSpec) -> Rows:
    rows = tabular.read(folder, data)
    values = np.empty(len(rows), dtype=np.float64)
    for index, label in enumerate(rows.labels):
        try:
            values[index] = float(label)
        except ValueError:
            values[index] = math.nan
        if not math.isfinite(values[index]):
            raise BadData(
                f"{data.path}, row {index + 1}: the target {data.label!r} is {label!r}, which is no number. "
                "Mend or remove the row, or choose classification."
            )
    return replace(rows, labels=values, extra={"target": np.full(len(rows), data.label, dtype=object)})


def learn(rows: Rows, train: Indices) -> dict[str, Any]:
    """The columns of the training rows, and the scale of their target: the network sees small numbers.

    A positive target with a long tail, such as a price, is learned as its logarithm: relative errors count then.
    """
    training = rows.take(train)
    values = training.labels.astype(np.float64)
    low, middle, high = (float(np.quantile(values, share)) for share in (0.05, 0.5, 0.95))
    logarithm = bool(values.min() > 0 and high - middle > SPREAD * (middle - low))
    scaled = np.log(values) if logarithm else values
    target = {
        "name": str(rows.extra["target"][0]),
        "logarithm": logarithm,
        "mean": float(scaled.mean()),
        "scale": max(float(scaled.std()), 1e-12),
    }
    return {**tabular.fit(training.inputs), "target": target}
