"""One use case a file: raw rows -> fitted transform -> numbers for the graph.

numpy only (networks.py excepted), for serving reads these too. Every recipe offers the same names::

    GRAPH_INPUT                     what the ONNX graph calls its one input
    read(folder, data) -> Rows      raw rows, typed, with their labels
    fit(inputs) -> dict             what must be learned from the training rows before the network; plain JSON
    signature(transform) -> list    the model's inputs in Open Inference Protocol v2 words
    encode(transform, inputs)       raw rows -> one entry a row
    batch(encoded)                  entries -> the array the graph takes
    TASK                            what an answer means: trainer.tasks

and two more where they are needed::

    learn(rows, train) -> dict      instead of `fit`, when more than the inputs must be seen
    encode_training(transform, rows, targets)
                                    instead of `encode`, when a row's own target must be kept out of it
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec
from trainer.contract import Recipe as Name
from trainer.data import Columns, Rows
from trainer.recipes import image, intents, language, reader, recommend, regression, sentiment, tabular, text
from trainer.tasks import Classification

Array = npt.NDArray[np.generic]


class Recipe(Protocol):
    GRAPH_INPUT: str
    TASK: Classification

    def read(self, folder: Path, data: DataSpec) -> Rows: ...
    def fit(self, inputs: Columns) -> dict[str, Any]: ...
    def signature(self, transform: Mapping[str, Any]) -> list[dict[str, Any]]: ...
    def encode(self, transform: Mapping[str, Any], inputs: Columns) -> Array: ...
    def batch(self, encoded: Array) -> Array: ...


_RECIPES: dict[Name, Any] = {
    Name.IMAGE: image,
    Name.TEXT: text,
    Name.READER: reader,
    Name.TABULAR: tabular,
    Name.REGRESSION: regression,
    Name.INTENT: intents,
    Name.SENTIMENT: sentiment,
    Name.RECOMMEND: recommend,
    Name.LANGUAGE: language,
}


def recipe(name: Name) -> Recipe:
    return _RECIPES[name]  # type: ignore[no-any-return]
