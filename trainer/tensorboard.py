"""Metrics as a file that TensorBoard opens: python -m trainer.tensorboard < metrics.jsonl > events.out.tfevents.1

A line in: {"at": seconds since 1970, "step": 3, "name": "train/loss", "value": 0.5}; lines without a number are
left out. Standard library only: a file is a row of records, each its length, its bytes and a CRC-32C of both, and
a record is one `Event` of tensorflow/core/util/event.proto in protobuf's encoding.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed
_MASK = 0xA282EAD8


def records(metrics: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The file in pieces: a header that names the version, then one record a metric."""
    header = _bytes_field(3, b"brain.Event:2")
    began = False
    for metric in metrics:
        value = metric.get("value")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        at, step = float(metric["at"]), int(metric["step"])
        if not began:
            yield _record(_double_field(1, at) + header)
            began = True
        shown = _bytes_field(1, str(metric["name"]).encode()) + _float_field(2, value)
        summary = _bytes_field(5, _bytes_field(1, shown))
        yield _record(_double_field(1, at) + _varint_field(2, step) + summary)
    if not began:
        yield _record(_double_field(1, 0.0) + header)


def crc32c(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _masked(length) + event + _masked(event)


def _masked(content: bytes) -> bytes:
    """A CRC over bytes that hold a CRC would be weak, so the format turns and shifts it."""
    crc = crc32c(content)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
    number &= 0xFFFFFFFFFFFFFFFF
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _varint_field(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _double_field(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _bytes_field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _float_field(field: int, number: float) -> bytes:
    try:
        packed = struct.pack("<f", number)
    except OverflowError:  # the format keeps 32 bits; beyond them is infinity
        packed = struct.pack("<f", math.copysign(math.inf, number))
    return _varint(field << 3 | 5) + packed


def _table() -> list[int]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ _POLYNOMIAL if byte & 1 else byte >> 1
        found.append(byte)
    return found


_TABLE = _table()


def main(lines: Iterable[bytes], out: BinaryIO) -> None:
    for record in records(json.loads(line) for line in lines if line.strip()):
        out.write(record)
    out.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
