"""A bundle: one variant's graph with all it takes to answer raw rows. ONNX Runtime only, never torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from trainer.contract import BUNDLE_FILE, ONNX_FILE, SAFETENSORS_FILE, SCHEMA_VERSION
from trainer.contract import Recipe as RecipeName
from trainer.data import Columns, words
from trainer.files import write_durably
from trainer.recipes import Recipe, recipe
from trainer.tasks import Classification

LABEL_OUTPUT = "label"
PROBABILITIES_OUTPUT = "probabilities"


class Tampered(ValueError):
    """A file is not the one the bundle was made with; it must not be loaded."""


class WrongInput(ValueError):
    """A row the model cannot take. `pointer` is a JSON pointer into the request."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


class Bundle:
    """A loaded variant. `open_bundle` makes one."""

    def __init__(
        self, description: dict[str, Any], session: onnxruntime.InferenceSession, folder: Path
    ) -> None:
        self.description = description
        self.folder = folder
        self.session = session
        self.recipe: Recipe = recipe(RecipeName(description["recipe"]))
        self.transform: dict[str, Any] = description["transform"]
        self.classes: tuple[str, ...] = tuple(description["classes"])
        self.inputs: list[dict[str, Any]] = description["inputs"]
        self.outputs: list[dict[str, Any]] = description["outputs"]
        self.output_names = tuple(item["name"] for item in self.outputs)
        # what the training rows looked like (trainer.gauges); None for models made before it was kept
        self.profile: dict[str, Any] | None = description.get("profile")
        # probabilities and the likeliest class, nothing more: what most models answer, and the quickest way
        self.is_plain = type(self.recipe.TASK) is Classification

    def encode(self, inputs: Columns) -> npt.NDArray[np.generic]:
        return self.recipe.encode(self.transform, inputs)

    def feed(self, encoded: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        return {self.recipe.GRAPH_INPUT: self.recipe.batch(encoded)}

    def probabilities(self, encoded: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        answer: npt.NDArray[np.float32] = self.session.run([PROBABILITIES_OUTPUT], self.feed(encoded))[0]
        return answer

    def serve(
        self, name: str, answers: npt.NDArray[np.float32], encoded: npt.NDArray[np.generic]
    ) -> npt.NDArray[np.generic]:
        """The values of one output for rows that the graph has answered."""
        if name == "text" and (go_on := getattr(self.recipe, "go_on", None)):
            written: npt.NDArray[np.generic] = go_on(
                self.transform, self.classes, encoded, self.probabilities
            )
            return written
        return self.recipe.TASK.serve(name, answers, encoded, self.classes, self.transform)

    def sample(self) -> Columns:
        """The held-out row that travels in the bundle, for a first try and for warming up."""
        return columns_from_json(self.inputs, self.description["sample"])


def open_bundle(folder: Path, *, threads: int = 1) -> Bundle:
    """Check every file against its checksum, then load the graph from the folder."""
    description = json.loads((folder / BUNDLE_FILE).read_text())
    if description.get("schema") != SCHEMA_VERSION:
        raise Tampered(
            f"{folder.name}/{BUNDLE_FILE} has schema {description.get('schema')!r}, not {SCHEMA_VERSION}."
        )
    checksums = description["sha256"]
    if ONNX_FILE not in checksums:
        raise Tampered(f"{folder.name}/{BUNDLE_FILE} has no checksum for {ONNX_FILE}.")
    for name, expected in checksums.items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise Tampered(f"{folder.name}/{name} is missing.")
        if sha256_of(path) != expected:
            raise Tampered(f"{folder.name}/{name} does not match its checksum: fetch the model again.")
    return Bundle(description, open_graph(folder / ONNX_FILE, threads=threads), folder)


def open_graph(path: Path, *, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # waiting threads would otherwise spin and eat the cores of idle replicas' neighbours
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def write_bundle(
    folder: Path,
    *,
    recipe_name: RecipeName,
    variant: str,
    classes: Sequence[str],
    transform: Mapping[str, Any],
    sample: Columns,
    profile: Mapping[str, Any] | None = None,
) -> None:
    """Describe the model files that already lie in `folder`. `profile`: of the training rows, if there is one."""
    files = [name for name in (ONNX_FILE, SAFETENSORS_FILE) if (folder / name).is_file()]
    inputs = recipe(recipe_name).signature(transform)
    description = {
        "schema": SCHEMA_VERSION,
        "recipe": recipe_name,
        "variant": variant,
        "classes": list(classes),
        "inputs": inputs,
        "outputs": recipe(recipe_name).TASK.outputs(classes, transform),
        "transform": dict(transform),
        "sha256": {name: sha256_of(folder / name) for name in files},
        "sample": {item["name"]: _json_column(sample[item["name"]]) for item in inputs},
    }
    if profile is not None:
        description["profile"] = dict(profile)
    write_durably(folder / BUNDLE_FILE, json.dumps(description, ensure_ascii=False, indent=1).encode())


def columns_from_json(inputs: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> Columns:
    """Plain JSON lists, one per input, as the arrays the transform takes."""
    columns: Columns = {}
    for item in inputs:
        value = values[item["name"]]
        if item["datatype"] == "BYTES":
            columns[item["name"]] = words(["" if word is None else str(word) for word in value])
        else:
            columns[item["name"]] = np.asarray(value, dtype=np.float32)
    return columns


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_column(column: npt.NDArray[np.generic]) -> list[Any]:
    if column.dtype == object:
        return [str(value) for value in column]
    if column.dtype == np.uint8:  # pixels are kept as bytes in training, and sent as 0..1
        return (column.astype(np.float64) / 255).round(4).tolist()  # type: ignore[no-any-return]
    if column.ndim == 1:
        return [None if np.isnan(value) else round(float(value), 6) for value in column]
    return column.astype(np.float64).tolist()  # type: ignore[no-any-return]
