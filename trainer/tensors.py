"""Binary tensors of the Open Inference Protocol: little-endian, row by row, behind the JSON of a body."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.bundle import WrongInput

_TYPES = {
    "FP64": "<f8", "FP32": "<f4", "FP16": "<f2", "INT64": "<i8", "INT32": "<i4", "INT16": "<i2", "INT8": "<i1",
    "UINT32": "<u4", "UINT16": "<u2", "UINT8": "<u1", "BF16": "<u2",
}  # fmt: skip
_LENGTH = struct.Struct("<I")


def cut(given: dict[str, Any], tail: memoryview, pointer: str) -> tuple[memoryview | None, memoryview]:
    """The bytes one input lays claim to (None: its data is in the JSON), and what is left for the next."""
    parameters = given.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return None, tail
    where = f"{pointer}/parameters/binary_data_size"
    if type(size) is not int or size < 0:
        raise WrongInput(where, "The size is a whole number of bytes.")
    if "data" in given:
        raise WrongInput(f"{pointer}/data", "This input has data twice: in the JSON and in binary.")
    if size > len(tail):
        raise WrongInput(where, f"{size} bytes are announced, {len(tail)} are left in the body.")
    return tail[:size], tail[size:]


def to_numbers(raw: memoryview, datatype: str, shape: list[int], pointer: str) -> npt.NDArray[np.float32]:
    """Numbers of any type as FP32, in the shape they were announced with."""
    kind = np.dtype(_TYPES[datatype])
    wanted = math.prod(shape) * kind.itemsize
    if len(raw) != wanted:
        text = f"{datatype} in the shape {shape} has {wanted} bytes, not {len(raw)}."
        raise WrongInput(f"{pointer}/parameters/binary_data_size", text)
    numbers = np.frombuffer(raw, dtype=kind).reshape(shape)
    if datatype == "BF16":  # the upper half of a 32-bit number
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def to_words(raw: memoryview, count: int, pointer: str) -> list[str]:
    """Texts, each behind its length."""
    found: list[str] = []
    at = 0
    while at < len(raw):
        place = f"{pointer}/data/{len(found)}"
        if at + 4 > len(raw):
            raise WrongInput(place, "The length of this text is cut off.")
        (size,) = _LENGTH.unpack_from(raw, at)
        at += 4 + size
        if at > len(raw):
            raise WrongInput(place, "This text is cut off.")
        try:
            found.append(str(raw[at - size : at], "utf-8"))
        except UnicodeDecodeError:
            raise WrongInput(place, "This text is not UTF-8.") from None
    if len(found) != count:
        text = f"{len(found)} texts were sent, the shape says {count}."
        raise WrongInput(f"{pointer}/parameters/binary_data_size", text)
    return found


def from_words(values: list[str]) -> bytes:
    parts = []
    for value in values:
        encoded = value.encode()
        parts += [_LENGTH.pack(len(encoded)), encoded]
    return b"".join(parts)
