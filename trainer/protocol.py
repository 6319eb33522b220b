"""Open Inference Protocol v2 in JSON: a request into checked rows, probabilities into an answer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.bundle import LABEL_OUTPUT, PROBABILITIES_OUTPUT, Bundle, WrongInput
from trainer.data import Columns, words

MAX_ROWS = 1024  # of one request; more belong into several
NUMBER_TYPES = frozenset(
    {"FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT8", "UINT16", "UINT32"}
)
PLATFORM = "onnxruntime_onnx"


class NotARequest(ValueError):
    """The body is not JSON, or not an object with inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One checked request: its rows encoded, ready to be joined with others."""

    id: str | None
    outputs: tuple[str, ...]
    rows: int
    encoded: npt.NDArray[np.generic]


def parse_request(body: bytes, bundle: Bundle) -> Request:
    """Check everything about a request before it may touch another one's batch."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotARequest(f"The body is not JSON: {error}.") from None
    if not isinstance(raw, dict):
        raise NotARequest('The body must be an object such as {"inputs": [...]}.')
    identity = raw.get("id")
    if identity is not None and not isinstance(identity, str):
        raise WrongInput("/id", "The id must be a string.")
    columns, rows = _columns(raw.get("inputs"), bundle)
    return Request(
        id=identity,
        outputs=_outputs(raw.get("outputs"), bundle),
        rows=rows,
        encoded=bundle.encode(columns),
    )


def answer(
    request: Request, probabilities: npt.NDArray[np.float32], bundle: Bundle, *, name: str, version: str
) -> bytes:
    """The v2 response to one request."""
    made: list[dict[str, Any]] = []
    for wanted in request.outputs:
        if wanted == PROBABILITIES_OUTPUT:
            data = np.round(probabilities.astype(np.float64), 7).ravel().tolist()
            shape = list(probabilities.shape)
            made.append({"name": wanted, "datatype": "FP32", "shape": shape, "data": data})
        else:
            labels = [bundle.classes[index] for index in probabilities.argmax(axis=1)]
            made.append({"name": wanted, "datatype": "BYTES", "shape": [request.rows], "data": labels})
    response: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id is not None:
        response["id"] = request.id
    response["outputs"] = made
    return json.dumps(response, ensure_ascii=False, separators=(",", ":")).encode()


def metadata(bundle: Bundle, *, name: str, version: str) -> bytes:
    """The v2 model metadata."""
    described = {
        "name": name,
        "versions": [version],
        "platform": PLATFORM,
        "inputs": bundle.inputs,
        "outputs": bundle.outputs,
    }
    return json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()


def refusal(text: str, pointer: str | None = None) -> bytes:
    """The body of an error; v2 asks for `error`, the pointer says where."""
    body = {"error": text} if pointer is None else {"error": text, "pointer": pointer}
    return json.dumps(body, ensure_ascii=False).encode()


def _columns(inputs: object, bundle: Bundle) -> tuple[Columns, int]:
    if not isinstance(inputs, list):
        raise NotARequest('The body must have "inputs", a list of {"name", "datatype", "shape", "data"}.')
    expected = {item["name"]: item for item in bundle.inputs}
    columns: Columns = {}
    rows: int | None = None
    for index, given in enumerate(inputs):
        pointer = f"/inputs/{index}"
        if not isinstance(given, dict):
            raise WrongInput(pointer, "An input is an object with name, datatype, shape and data.")
        name = given.get("name")
        if not isinstance(name, str) or name not in expected:
            raise WrongInput(
                f"{pointer}/name", f"The model has no input {name!r}; it takes {_listed(expected)}."
            )
        if name in columns:
            raise WrongInput(f"{pointer}/name", f"The input {name!r} is given twice.")
        shape = _shape(given.get("shape"), expected[name]["shape"], f"{pointer}/shape")
        if rows is not None and shape[0] != rows:
            raise WrongInput(f"{pointer}/shape", f"This input has {shape[0]} rows, the first one has {rows}.")
        rows = shape[0]
        columns[name] = _column(given, expected[name]["datatype"], shape, pointer, bundle)
    missing = [name for name in expected if name not in columns]
    if missing or rows is None:
        raise WrongInput("/inputs", f"Missing: {', '.join(missing)}. The model takes {_listed(expected)}.")
    return columns, rows


def _shape(given: object, expected: list[int], pointer: str) -> list[int]:
    if not isinstance(given, list) or any(type(size) is not int or size < 0 for size in given):
        raise WrongInput(pointer, f"The shape must be a list of whole numbers like {expected}.")
    # [n, 1] for a column of n values is what many clients send
    shape = given[:1] if len(expected) == 1 and len(given) == 2 and given[1] == 1 else given
    if len(shape) != len(expected) or shape[1:] != expected[1:]:
        raise WrongInput(pointer, f"The shape {given} does not fit {expected}; -1 is the number of rows.")
    if not 1 <= shape[0] <= MAX_ROWS:
        raise WrongInput(pointer, f"{shape[0]} rows: send between 1 and {MAX_ROWS} in one request.")
    return shape


def _column(
    given: dict[str, Any], datatype: str, shape: list[int], pointer: str, bundle: Bundle
) -> npt.NDArray[np.generic]:
    said = given.get("datatype")
    fits = said in NUMBER_TYPES if datatype == "FP32" else said == datatype
    if not fits:
        raise WrongInput(f"{pointer}/datatype", f"The datatype must be {datatype}, not {said!r}.")
    data = given.get("data")
    if not isinstance(data, list):
        raise WrongInput(f"{pointer}/data", "The data must be a list.")
    flat = data
    while flat and isinstance(flat[0], list):  # v2 allows nested lists
        if not all(isinstance(part, list) for part in flat):
            raise WrongInput(f"{pointer}/data", "The lists in data are not nested evenly.")
        flat = [value for part in flat for value in part]
    if len(flat) != math.prod(shape):
        raise WrongInput(f"{pointer}/data", f"{len(flat)} values do not fill the shape {shape}.")
    # a missing value is something a table knows, a picture or a text does not
    optional = len(bundle.inputs) > 1 or bundle.description["recipe"].startswith("tabular")
    if datatype == "BYTES":
        return words(_words(flat, pointer, optional))
    return _numbers(flat, pointer, optional).reshape(shape)


def _words(flat: list[Any], pointer: str, optional: bool) -> list[str]:
    for index, value in enumerate(flat):
        if not isinstance(value, str) and not (optional and value is None):
            raise WrongInput(f"{pointer}/data/{index}", f"Text is expected here, not {_shown(value)}.")
    return ["" if value is None else value for value in flat]


def _numbers(flat: list[Any], pointer: str, optional: bool) -> npt.NDArray[np.float32]:
    for index, value in enumerate(flat):
        kind = type(value)
        if kind is not float and kind is not int and not (optional and value is None):
            raise WrongInput(f"{pointer}/data/{index}", f"A number is expected here, not {_shown(value)}.")
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(flat, dtype=np.float32)  # None becomes NaN, which means missing
    except OverflowError:
        raise WrongInput(f"{pointer}/data", "A number is too large.") from None
    bad = np.isinf(numbers) if optional else ~np.isfinite(numbers)
    if bad.any():
        raise WrongInput(f"{pointer}/data/{int(bad.argmax())}", "A finite number is expected here.")
    return numbers


def _outputs(wanted: object, bundle: Bundle) -> tuple[str, ...]:
    known = (PROBABILITIES_OUTPUT, LABEL_OUTPUT)
    if wanted is None or wanted == []:
        return known
    if not isinstance(wanted, list):
        raise WrongInput("/outputs", 'Outputs are a list of objects such as {"name": "label"}.')
    names = []
    for index, item in enumerate(wanted):
        name = item.get("name") if isinstance(item, dict) else None
        if name not in known:
            raise WrongInput(
                f"/outputs/{index}/name", f"The model has no output {name!r}; it has {', '.join(known)}."
            )
        names.append(name)
    return tuple(dict.fromkeys(names))


def _listed(expected: dict[str, Any]) -> str:
    names = list(expected)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
