"""The route for humans: rows, texts or images in plain JSON or as a file upload, labels and probabilities back."""

from __future__ import annotations

import base64
import binascii
import json
from email.parser import BytesParser
from email.policy import HTTP
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from trainer.bundle import PROBABILITIES_OUTPUT, Bundle, WrongInput
from trainer.data import Columns, words
from trainer.failures import BadData
from trainer.protocol import (
    DIGITS,
    MAX_ROWS,
    NotARequest,
    Request,
    Results,
    is_optional,
    read_numbers,
    read_words,
)
from trainer.recipes import image

_MANY = {"rows": "row", "texts": "text", "images": "image"}  # what holds many, and what holds one


def parse_plain(body: bytes, bundle: Bundle, *, kind: str) -> Request:
    """Rows from a body of this content type.

    JSON: {"rows": [...]}, {"texts": [...]}, {"images": [...]}, or one of them as {"row": ...}. A row of a table is
    an object by column, where a column left out is a missing value; an image is base64 or nested lists of pixels
    from 0 to 1. multipart/form-data and image/*: image files.
    """
    main = kind.split(";", 1)[0].strip().lower()
    if main.startswith("image/"):
        return _files([("body", body)], bundle)
    if main == "multipart/form-data":
        return _files(_parts(body, kind), bundle)
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotARequest(f"The body is not JSON: {error}.") from None
    if not isinstance(raw, dict):
        raise NotARequest('The body must be an object such as {"rows": [...]}.')
    given = [name for pair in _MANY.items() for name in pair if name in raw]
    if len(given) != 1:
        raise NotARequest(f"Send one of {', '.join(_MANY)}, or one of {', '.join(_MANY.values())}.")
    name = given[0]
    rows, pointer = raw[name], f"/{name}"
    if name not in _MANY:
        rows = [rows]
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_ROWS:
        raise WrongInput(pointer, f"Send a list of 1 to {MAX_ROWS} rows.")
    places = [pointer] if name not in _MANY else [f"{pointer}/{index}" for index in range(len(rows))]
    return _request(read_rows(rows, places, bundle), len(rows), bundle)


def plain_answer(
    request: Request, results: Results, start: int, bundle: Bundle, *, name: str, version: str
) -> bytes:
    """Label and probability of each class, row by row; of other models every output by its name."""
    told = predictions(request, results, start, bundle)
    return msgspec.json.encode({"model": name, "version": version, "predictions": told})


def predictions(request: Request, results: Results, start: int, bundle: Bundle) -> list[dict[str, Any]]:
    """What is said of each row of the request, whose first is row `start` of the results."""
    if not bundle.is_plain:
        end = start + request.rows
        told = {
            one: bundle.serve(one, results.array[start:end], request.encoded)
            for one in bundle.output_names
            if one
            != PROBABILITIES_OUTPUT  # of every answer of a catalogue: the scores of the best are enough
        }
        return [{one: _value(column[row]) for one, column in told.items()} for row in range(request.rows)]
    found: list[dict[str, Any]] = []
    for row in range(start, start + request.rows):
        scores, top = results.scores[row], results.top[row]
        shares = dict(zip(bundle.classes, scores, strict=False))
        found.append({"label": bundle.classes[top], "probability": scores[top], "probabilities": shares})
    return found


def _value(told: Any) -> Any:
    """One cell of an output: a text, a number, or a list of either."""
    if isinstance(told, np.ndarray):
        return [_value(one) for one in told]
    return told if isinstance(told, str) else round(float(told), DIGITS)


def read_rows(rows: list[Any], places: list[str], bundle: Bundle) -> Columns:
    """Rows of plain JSON, each with its pointer, as the columns the model takes; or WrongInput at one of them."""
    if len(bundle.inputs) > 1 or bundle.description["recipe"].startswith("tabular"):
        return _table(rows, places, bundle)
    (only,) = bundle.inputs
    # {"text": "..."} is as good as "..." where the model has one input
    values = [
        row[only["name"]] if isinstance(row, dict) and set(row) == {only["name"]} else row for row in rows
    ]
    if only["datatype"] == "BYTES":
        for value, place in zip(values, places, strict=True):
            if not isinstance(value, str):
                raise WrongInput(place, "Text is expected here.")
        return {only["name"]: words(values)}
    shape = only["shape"][1:]
    return {only["name"]: np.stack([_block(*one, shape) for one in zip(values, places, strict=True)])}


def _table(rows: list[Any], places: list[str], bundle: Bundle) -> Columns:
    names = {item["name"]: item["datatype"] for item in bundle.inputs}
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise WrongInput(place, f"A row is an object with the columns {', '.join(list(names)[:8])}.")
        for name in row:
            if name not in names:
                raise WrongInput(f"{place}/{_escaped(name)}", "The model knows no such column.")
        if not row:
            raise WrongInput(place, f"This row is empty. The model takes {', '.join(list(names)[:8])}.")
    found: Columns = {}
    for name, datatype in names.items():
        column = []
        for row, place in zip(rows, places, strict=True):
            try:
                read: Any = read_words if datatype == "BYTES" else read_numbers
                column.append(read([row.get(name)], place, is_optional(bundle))[0])
            except WrongInput as wrong:
                raise WrongInput(f"{place}/{_escaped(name)}", wrong.detail) from None
        found[name] = words(column) if datatype == "BYTES" else np.asarray(column, dtype=np.float32)
    return found


def _block(value: Any, place: str, shape: list[int]) -> npt.NDArray[np.float32]:
    """One picture: base64 of a file, or numbers in the model's own shape."""
    if isinstance(value, str):
        encoded = value.split(",", 1)[1] if value.startswith("data:") and "," in value else value
        try:
            return picture(base64.b64decode(encoded, validate=True), place, shape)
        except binascii.Error:
            raise WrongInput(place, "This is not base64 of an image file.") from None
    flat: Any = value
    while isinstance(flat, list) and flat and isinstance(flat[0], list):
        if not all(isinstance(part, list) for part in flat):
            raise WrongInput(place, "The lists of pixels are not nested evenly.")
        flat = [one for part in flat for one in part]
    if not isinstance(flat, list):
        raise WrongInput(place, "An image is base64 of a file, or lists of pixels from 0 to 1.")
    size = int(np.prod(shape))
    if len(flat) != size:
        raise WrongInput(place, f"{len(flat)} numbers do not fill the shape {shape}.")
    return read_numbers(flat, place, optional=False).reshape(shape)


def picture(content: bytes, place: str, shape: list[int]) -> npt.NDArray[np.float32]:
    """An image file as the model takes it, [channels, side, side] from 0 to 1; or WrongInput at `place`."""
    channels, side = shape[0], shape[-1]
    if len(shape) != 3 or channels not in (1, 3):
        raise WrongInput(place, f"The model takes numbers in the shape {shape}, not an image file.")
    try:
        pixels = image.read_one(BytesIO(content), "The image", side=side, colour=channels == 3)
    except BadData as bad:
        raise WrongInput(place, str(bad)) from None
    return pixels.astype(np.float32) / np.float32(255)


def _files(files: list[tuple[str, bytes]], bundle: Bundle) -> Request:
    shape = bundle.inputs[0]["shape"][1:]
    if len(bundle.inputs) != 1 or bundle.inputs[0]["datatype"] == "BYTES" or len(shape) != 3:
        raise WrongInput("", "This model takes no image files. Send JSON: rows or texts.")
    if not 1 <= len(files) <= MAX_ROWS:
        raise WrongInput("", f"Send 1 to {MAX_ROWS} image files in one request.")
    blocks = [picture(content, f"/{_escaped(name)}", shape) for name, content in files]
    return _request({bundle.inputs[0]["name"]: np.stack(blocks)}, len(blocks), bundle)


def _parts(body: bytes, kind: str) -> list[tuple[str, bytes]]:
    """Name and content of each file of a form."""
    head = b"Content-Type: " + kind.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")
    form = BytesParser(policy=HTTP).parsebytes(head + b"\r\n\r\n" + body)
    if not form.is_multipart():
        raise NotARequest("The form cannot be read: is its boundary right?")
    found = []
    for part in form.iter_parts():
        content = part.get_payload(decode=True)
        if part.get_filename() is not None and isinstance(content, bytes):
            found.append((str(part.get_param("name", "file", header="content-disposition")), content))
    if not found:
        raise NotARequest("The form holds no file. Send image files, one or more.")
    return found


def _request(columns: Columns, rows: int, bundle: Bundle) -> Request:
    return Request(rows=rows, encoded=bundle.encode(columns), plain=True, columns=columns)


def _escaped(name: str) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
