"""Open Inference Protocol v2: a request into checked rows, probabilities into an answer; JSON or binary tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from trainer import tensors
from trainer.bundle import LABEL_OUTPUT, PROBABILITIES_OUTPUT, Bundle, WrongInput
from trainer.data import Columns, words

MAX_ROWS = 1024  # of one request; more belong into several
NUMBER_TYPES = frozenset(
    {"FP64", "FP32", "FP16", "BF16", "INT64", "INT32", "INT16", "INT8", "UINT8", "UINT16", "UINT32"}
)
PLATFORM = "onnxruntime_onnx"
DIGITS = 7  # of a probability in JSON: all that a 32-bit number holds


class NotARequest(ValueError):
    """The body is not JSON, or not an object with inputs."""


class Output(msgspec.Struct, frozen=True):
    """One output a caller wants."""

    name: str
    binary: bool = False
    best: int = 0  # of the classification extension: the n likeliest classes instead of all numbers


class Request(msgspec.Struct, kw_only=True):
    """One checked request: its rows encoded, ready to be joined with others."""

    rows: int
    encoded: npt.NDArray[np.generic]
    id: str | None = None
    outputs: tuple[Output, ...] = ()
    plain: bool = False  # answered in the words of `predict`, not of v2
    within_s: float | None = None  # the caller's own deadline
    columns: Columns = {}  # the rows as they came, for what is counted of them (trainer.watch)


class Results:
    """What the model said to a batch, turned into plain numbers once for all its requests."""

    def __init__(self, answers: npt.NDArray[np.float32]) -> None:
        self.array = answers

    # made when they are asked for: a ranking of thousands of items is never written out whole
    @cached_property
    def scores(self) -> list[list[float]]:
        return np.round(self.array.astype(np.float64), DIGITS).tolist()  # type: ignore[no-any-return]

    @cached_property
    def top(self) -> list[int]:
        return self.array.argmax(axis=1).tolist()  # type: ignore[no-any-return]


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw
    parameters: msgspec.Raw | None = None


class _Asked(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    outputs: msgspec.Raw | None = None
    parameters: msgspec.Raw | None = None


_ASKED = msgspec.json.Decoder(_Asked)
_NUMBERS = msgspec.json.Decoder(list[float])
_TEXTS = msgspec.json.Decoder(list[str])
_USUAL = (Output(PROBABILITIES_OUTPUT), Output(LABEL_OUTPUT))


def parse_request(body: bytes, bundle: Bundle, *, json_bytes: int | None = None) -> Request:
    """Check everything about a request before it may touch another one's batch.

    `json_bytes` is where the JSON ends and binary tensors begin; None: all of it is JSON.
    """
    if json_bytes is None and (quick := _quick(body, bundle)) is not None:
        return quick
    if json_bytes is not None and not 0 < json_bytes <= len(body):
        raise NotARequest(f"The header says {json_bytes} bytes of JSON; the body has {len(body)} bytes.")
    try:
        raw = json.loads(body if json_bytes is None else body[:json_bytes])
    except (ValueError, RecursionError) as error:
        raise NotARequest(f"The body is not JSON: {error}.") from None
    if not isinstance(raw, dict):
        raise NotARequest('The body must be an object such as {"inputs": [...]}.')
    identity = raw.get("id")
    if identity is not None and not isinstance(identity, str):
        raise WrongInput("/id", "The id must be a string.")
    parameters = raw.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise WrongInput("/parameters", "Parameters are an object.")
    tail = memoryview(body)[json_bytes:] if json_bytes is not None else memoryview(b"")
    columns, rows = _columns(raw.get("inputs"), bundle, tail)
    return Request(
        id=identity,
        outputs=_outputs(raw.get("outputs"), bundle, binary=parameters.get("binary_data_output") is True),
        rows=rows,
        encoded=bundle.encode(columns),
        within_s=_within(parameters.get("timeout")),
        columns=columns,
    )


def answer(
    request: Request, results: Results, start: int, bundle: Bundle, *, name: str, version: str
) -> tuple[bytes, int | None]:
    """The v2 response to the rows from `start` on, and where its JSON ends if binary tensors follow."""
    end = start + request.rows
    made: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for wanted in request.outputs:
        shape = [request.rows]
        values: list[Any] = []
        if wanted.best:
            texts = _best(results.array[start:end], wanted.best, bundle)
            datatype, values, shape = "BYTES", texts, [request.rows, len(texts) // request.rows]
        elif wanted.name == PROBABILITIES_OUTPUT:
            datatype, shape = "FP32", [request.rows, results.array.shape[1]]
            if not wanted.binary:
                values = [value for row in results.scores[start:end] for value in row]
        elif bundle.is_plain:
            datatype, values = "BYTES", [bundle.classes[index] for index in results.top[start:end]]
        else:
            told = bundle.serve(wanted.name, results.array[start:end], request.encoded)
            shape = list(told.shape)
            datatype, values = ("BYTES" if told.dtype == object else "FP32"), _written(told)
        one: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.binary:
            numbers = results.array[start:end] if wanted.name == PROBABILITIES_OUTPUT else values
            tail = (
                np.ascontiguousarray(numbers, dtype="<f4").tobytes()
                if datatype == "FP32"
                else tensors.from_words(values)
            )
            one["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            one["data"] = values
        made.append(one)
    response: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id is not None:
        response["id"] = request.id
    response["outputs"] = made
    head = msgspec.json.encode(response)
    return (b"".join([head, *tails]), len(head)) if tails else (head, None)


def _written(told: npt.NDArray[np.generic]) -> list[Any]:
    """The values of one output in a row, as JSON writes them."""
    if told.dtype == object:
        return [str(value) for value in told.ravel()]
    return np.round(told.astype(np.float64), DIGITS).ravel().tolist()  # type: ignore[no-any-return]


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


def refusal(text: str, pointer: str | None = None, **more: Any) -> bytes:
    """The body of an error; v2 asks for `error`, the pointer says where."""
    body = {"error": text, **more} if pointer is None else {"error": text, "pointer": pointer, **more}
    return json.dumps(body, ensure_ascii=False).encode()


def is_optional(bundle: Bundle) -> bool:
    """A missing value is something a table knows, a picture or a text does not."""
    return len(bundle.inputs) > 1 or bundle.description["recipe"].startswith("tabular")


def _quick(body: bytes, bundle: Bundle) -> Request | None:
    """A request as nearly all are: complete, of the very types the model names. None: look closer."""
    try:
        asked = _ASKED.decode(body)
        if (
            asked.outputs is not None
            or asked.parameters is not None
            or len(asked.inputs) != len(bundle.inputs)
        ):
            return None
        given = {one.name: one for one in asked.inputs}
        columns: Columns = {}
        rows = asked.inputs[0].shape[0]
        if not 1 <= rows <= MAX_ROWS:
            return None
        for expected in bundle.inputs:
            one = given[expected["name"]]
            shape = [rows, *expected["shape"][1:]]
            if one.datatype != expected["datatype"] or one.shape != shape or one.parameters is not None:
                return None
            if one.datatype == "BYTES":
                texts = _TEXTS.decode(one.data)
                if len(texts) != rows:
                    return None
                columns[one.name] = words(texts)
            else:
                numbers = np.array(_NUMBERS.decode(one.data), dtype=np.float32)
                if numbers.size != math.prod(shape) or not np.isfinite(numbers).all():
                    return None
                columns[one.name] = numbers.reshape(shape)
    except (msgspec.MsgspecError, KeyError, IndexError, OverflowError, RecursionError, UnicodeDecodeError):
        return None
    outputs = _USUAL if bundle.is_plain else tuple(Output(name) for name in bundle.output_names)
    encoded = bundle.encode(columns)
    return Request(id=asked.id, outputs=outputs, rows=rows, encoded=encoded, columns=columns)


def _columns(inputs: object, bundle: Bundle, tail: memoryview) -> tuple[Columns, int]:
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
        raw, tail = tensors.cut(given, tail, pointer)
        columns[name] = _column(given, raw, expected[name]["datatype"], shape, pointer, bundle)
    missing = [name for name in expected if name not in columns]
    if missing or rows is None:
        raise WrongInput("/inputs", f"Missing: {', '.join(missing)}. The model takes {_listed(expected)}.")
    if len(tail):
        raise WrongInput("/inputs", f"{len(tail)} bytes follow that no input lays claim to.")
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
    given: dict[str, Any],
    raw: memoryview | None,
    datatype: str,
    shape: list[int],
    pointer: str,
    bundle: Bundle,
) -> npt.NDArray[np.generic]:
    said = given.get("datatype")
    fits = said in NUMBER_TYPES if datatype == "FP32" else said == datatype
    if not fits:
        raise WrongInput(f"{pointer}/datatype", f"The datatype must be {datatype}, not {said!r}.")
    optional = is_optional(bundle)
    if raw is not None:
        if datatype == "BYTES":
            return words(tensors.to_words(raw, shape[0], pointer))
        return _checked(tensors.to_numbers(raw, str(said), shape, pointer), optional, pointer)
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
    if datatype == "BYTES":
        return words(read_words(flat, f"{pointer}/data", optional))
    return read_numbers(flat, f"{pointer}/data", optional).reshape(shape)


def read_words(flat: Sequence[Any], pointer: str, optional: bool) -> list[str]:
    """Texts of a JSON list, or the place of the first that is none."""
    for index, value in enumerate(flat):
        if not isinstance(value, str) and not (optional and value is None):
            raise WrongInput(f"{pointer}/{index}", f"Text is expected here, not {_shown(value)}.")
    return ["" if value is None else value for value in flat]


def read_numbers(flat: Sequence[Any], pointer: str, optional: bool) -> npt.NDArray[np.float32]:
    """Numbers of a JSON list, or the place of the first that is none."""
    for index, value in enumerate(flat):
        kind = type(value)
        if kind is not float and kind is not int and not (optional and value is None):
            raise WrongInput(f"{pointer}/{index}", f"A number is expected here, not {_shown(value)}.")
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(flat, dtype=np.float32)  # None becomes NaN, which means missing
    except OverflowError:
        raise WrongInput(pointer, "A number is too large.") from None
    bad = np.isinf(numbers) if optional else ~np.isfinite(numbers)
    if bad.any():
        raise WrongInput(f"{pointer}/{int(bad.argmax())}", "A finite number is expected here.")
    return numbers


def _checked(numbers: npt.NDArray[np.float32], optional: bool, pointer: str) -> npt.NDArray[np.float32]:
    bad = np.isinf(numbers) if optional else ~np.isfinite(numbers)
    if bad.any():
        at = int(bad.argmax())
        raise WrongInput(f"{pointer}/data/{at}", f"The value at place {at} is not a finite number.")
    return numbers


def _outputs(wanted: object, bundle: Bundle, *, binary: bool) -> tuple[Output, ...]:
    known = bundle.output_names
    if wanted is None or wanted == []:
        return tuple(Output(name, binary) for name in known)
    if not isinstance(wanted, list):
        raise WrongInput("/outputs", 'Outputs are a list of objects such as {"name": "label"}.')
    found: dict[str, Output] = {}
    for index, item in enumerate(wanted):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or name not in known:
            raise WrongInput(
                f"/outputs/{index}/name", f"The model has no output {name!r}; it has {', '.join(known)}."
            )
        more = item.get("parameters") or {}
        best = more.get("classification", 0) if isinstance(more, dict) else None
        if not isinstance(best, int) or best < 0 or (best and name != PROBABILITIES_OUTPUT):
            text = f"Only {PROBABILITIES_OUTPUT} can be asked for its likeliest classes, 1 or more."
            raise WrongInput(f"/outputs/{index}/parameters", text)
        found[name] = Output(name, more.get("binary_data", binary) is True, best)
    return tuple(found.values())


def _within(timeout_us: object) -> float | None:
    """The `timeout` parameter of a request, in microseconds as its best known client sends it."""
    if timeout_us is None:
        return None
    if type(timeout_us) is not int or timeout_us < 1:
        raise WrongInput("/parameters/timeout", "The timeout is a whole number of microseconds above zero.")
    return timeout_us / 1e6


def _best(probabilities: npt.NDArray[np.float32], count: int, bundle: Bundle) -> list[str]:
    """value:index:label of the likeliest classes of each row, as the classification extension writes them."""
    count = min(count, probabilities.shape[1])
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [
        f"{probabilities[row, index]:.6f}:{index}:{bundle.classes[index]}"
        for row in range(len(probabilities))
        for index in order[row]
    ]


def _listed(expected: dict[str, Any]) -> str:
    names = list(expected)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
