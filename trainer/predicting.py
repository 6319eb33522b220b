"""What the web and the engine agree on about a batch prediction. Standard library only; `contract` hands it on.

A run folder of one looks like this::

    spec.json           PredictSpec
    bundle/             the version that answers: bundle.json, model.onnx
    data/rows.jsonl     one line a row of the dataset, in its order:
                        {"row": 7, "cells": {"age": "41"}}        a row to answer
                        {"row": 8, "file": "data/images/a/1.png"} a picture to answer
                        {"row": 9, "bad": "line 10: ..."}         a row that could not even be read
    checkpoints/        part-<n>.csv, part-<n>.jsonl and, written last, part-<n>.json: a finished part
    result/             predictions.csv, predictions.jsonl, and, written last, manifest.json: PredictManifest

Every line of rows.jsonl becomes one line of each output, in the same order: an answer, or why there is none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.reading import BadSpec, build, require

PREDICT_SCHEMA = 1
BUNDLE_DIR = "bundle"
ROWS_FILE = "data/rows.jsonl"
PREDICTIONS_CSV = "predictions.csv"
PREDICTIONS_JSONL = "predictions.jsonl"
MOST_PROBLEMS = 20  # bad rows named in the manifest; the outputs name all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSpec:
    """One batch prediction, complete: nothing else tells the engine what to do."""

    run_id: str
    rows: int  # lines of rows.jsonl
    columns: dict[str, str] = field(default_factory=dict)  # input of the model -> column of the dataset
    keep: tuple[str, ...] = ()  # columns of the dataset that are copied beside the answers
    part_rows: int = 10_000  # a part is finished and safe after so many rows,
    part_s: float = 5.0  # or after so many seconds
    schema: int = PREDICT_SCHEMA

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> PredictSpec:
        """Read a spec back, or raise BadSpec naming the field."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BadSpec("", f"this is not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise BadSpec("", "a prediction spec is a JSON object")
        require(raw.get("schema") == PREDICT_SCHEMA, "/schema", f"this engine reads {PREDICT_SCHEMA}")
        spec = build(cls, {**raw, "keep": tuple(raw.get("keep", ()))}, "")
        require(spec.rows >= 1, "/rows", "must be at least 1")
        require(spec.part_rows >= 1, "/part_rows", "must be at least 1")
        require(isinstance(spec.columns, dict), "/columns", "must be an object")
        return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictManifest:
    """What a batch prediction left: rows in all, those answered, and the first of those that were not."""

    rows: int
    answered: int
    bad: int
    problems: tuple[dict[str, Any], ...]  # {"row": int, "reason": str}
    preview: tuple[dict[str, Any], ...]  # the first lines of predictions.jsonl
    files: dict[str, str]  # name -> SHA-256

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> PredictManifest:
        raw = json.loads(text)
        return cls(**{**raw, "problems": tuple(raw["problems"]), "preview": tuple(raw["preview"])})
