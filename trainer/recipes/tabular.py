"""Tabular classification: numbers scaled and cut in pieces, words one-hot, missing values marked; types are inferred.

A number is given twice: scaled, and as how far it has come through each piece of its column's range, the pieces
holding about as many rows each (piecewise linear encoding; Gorishniy and others, On embeddings for numerical
features, 2022). So even the linear part of the network can follow a bend.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec
from trainer.data import Columns, Rows, column, is_missing, read_table, required, words
from trainer.failures import BadData
from trainer.tasks import CLASSIFICATION as TASK

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "read", "signature", "width"]

GRAPH_INPUT = "features"
RARE_BELOW = 3  # a word seen less often in training is "rare": too few rows to learn from
MAX_WORDS = 64  # per column; the rest is "rare" too
PIECES = 8  # of a number's range, at most
ROWS_A_PIECE = 200  # fewer rows could not say what is different about a piece
CLIP = 8.0  # standard deviations: one absurd value must not drown a row


def read(folder: Path, data: DataSpec) -> Rows:
    table, places = read_table(folder, data)
    labels = required(column(table, data.label, "label", data), places, data.label or "")
    names = data.features or tuple(name for name in table if name != data.label)
    if data.label in names:
        raise BadData(
            f"The label column {data.label!r} is also a feature: the answer would be in the question."
        )
    inputs: Columns = {}
    for name in names:
        values = column(table, name, "feature", data)
        if all(is_missing(value) for value in values):
            raise BadData(
                f"{data.path}: column {name!r} is empty in every row. Leave it out of the features."
            )
        inputs[name] = _typed(values)
    if not inputs:
        raise BadData(f"{data.path} has no column besides the label {data.label!r}.")
    return Rows(inputs=inputs, labels=words(labels))


def fit(inputs: Columns) -> dict[str, Any]:
    """Learn scale and vocabulary from the training rows. Column order is feature order."""
    return {"columns": [_fit_column(name, values) for name, values in inputs.items()]}


def without_pieces(transform: Mapping[str, Any]) -> dict[str, Any]:
    """The same, but no number is cut in pieces.

    Edges are quantiles of the training rows, the outermost of them exact values of single rows. A private model
    may not tell them, and its transform travels in every bundle.
    """
    uncut = [{**item, "edges": []} if "edges" in item else item for item in transform["columns"]]
    return {**transform, "columns": uncut}


def signature(transform: Mapping[str, Any]) -> list[dict[str, Any]]:
    types = {"number": "FP32", "words": "BYTES"}
    return [
        {"name": item["name"], "datatype": types[item["kind"]], "shape": [-1]}
        for item in transform["columns"]
    ]


def encode(transform: Mapping[str, Any], inputs: Columns) -> npt.NDArray[np.generic]:
    parts = [_encode_column(item, inputs[item["name"]]) for item in transform["columns"]]
    return np.concatenate(parts, axis=1)


def batch(encoded: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return encoded


def width(transform: Mapping[str, Any]) -> int:
    """How many features one row becomes."""
    return sum(map(_width, transform["columns"]))


def _width(item: Mapping[str, Any]) -> int:
    return 2 + len(item.get("edges", ())[1:]) if item["kind"] == "number" else 2 + len(item["words"])


def _typed(values: list[str | None]) -> npt.NDArray[np.generic]:
    """Numbers if every value that is there is a finite number, else words with None for missing as ""."""
    numbers: list[float] = []
    for value in values:
        if is_missing(value):
            numbers.append(math.nan)
            continue
        try:
            number = float(value or "")
        except ValueError:
            number = math.inf
        if not math.isfinite(number):
            return words(["" if is_missing(item) else str(item).strip() for item in values])
        numbers.append(number)
    return np.asarray(numbers, dtype=np.float32)


def _fit_column(name: str, values: npt.NDArray[np.generic]) -> dict[str, Any]:
    if values.dtype == object:
        counts = Counter(str(value) for value in values if value != "")
        known = [word for word, count in counts.most_common(MAX_WORDS) if count >= RARE_BELOW]
        return {"name": name, "kind": "words", "words": sorted(known)}
    there = values[~np.isnan(values.astype(np.float32))].astype(np.float64)
    mean = float(there.mean()) if len(there) else 0.0
    scale = float(there.std()) if len(there) else 0.0
    found = {"name": name, "kind": "number", "mean": mean, "scale": scale if scale > 1e-12 else 1.0}
    return {**found, "edges": _edges(there)}


def _edges(there: npt.NDArray[np.float64]) -> list[float]:
    """Where the pieces of a column's range begin and end; empty where there is nothing to cut."""
    pieces = min(PIECES, len(there) // ROWS_A_PIECE)
    if pieces < 2:
        return []
    edges = np.unique(np.quantile(there, np.linspace(0, 1, pieces + 1)))
    return edges.tolist() if len(edges) > 2 else []


def _encode_column(item: Mapping[str, Any], values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """A number becomes (scaled, is missing, pieces...); a word one-hot over (missing, rare, known words...)."""
    if item["kind"] == "number":
        raw = values.astype(np.float64)
        missing = np.isnan(raw)
        scaled = np.clip((raw - item["mean"]) / item["scale"], -CLIP, CLIP)
        plain = np.stack([np.where(missing, 0.0, scaled), missing], axis=1)
        edges = np.asarray(item.get("edges", ()))
        if len(edges) < 2:  # nothing to cut, or a model of before there were pieces
            return plain.astype(np.float32)
        come = np.clip((raw[:, None] - edges[:-1]) / np.diff(edges), 0.0, 1.0)
        return np.concatenate([plain, np.where(missing[:, None], 0.0, come)], axis=1).astype(np.float32)
    place = {word: index + 2 for index, word in enumerate(item["words"])}
    one_hot = np.zeros((len(values), len(item["words"]) + 2), dtype=np.float32)
    for row, value in enumerate(values):
        text = "" if value is None else str(value).strip()
        one_hot[row, 0 if is_missing(text) else place.get(text, 1)] = 1.0
    return one_hot
