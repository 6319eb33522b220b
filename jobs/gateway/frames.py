"""The frames a model worker speaks (see `trainer/serve.py`). Standard library only."""

from __future__ import annotations

import socket
import struct
import time
from typing import NamedTuple

HEAD = struct.Struct(">II")  # length of what follows, request id
ANSWER = struct.Struct(">IIHIII")  # the same, then status, rows, tokens and microseconds of computing
ENVELOPE = struct.Struct(">ccII")  # the mark, a letter, milliseconds to begin within, length of the head
ANSWER_EXTRA = ANSWER.size - 4  # what `length` counts before the body


class Answer(NamedTuple):
    """What a worker said to one request."""

    status: int
    rows: int
    tokens: int
    compute_us: int
    body: bytes


class WorkerLost(ConnectionError):
    """The worker's connection broke before it answered."""


def frame(number: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload) + 4, number) + payload


def envelope(letter: bytes, body: bytes, *, head: bytes = b"", within_ms: int = 0) -> bytes:
    """A payload that says what it is and by when it must begin."""
    return ENVELOPE.pack(b"\x01", letter, within_ms, len(head)) + head + body


def forget(number: int) -> bytes:
    """The whole frame that takes a request out of the worker's queue."""
    return frame(0, ENVELOPE.pack(b"\x01", b"X", 0, number))


def take(data: bytes) -> tuple[list[tuple[int, Answer]], bytes]:
    """Every whole answer at the front, and the bytes that are left."""
    found = []
    at, there = 0, len(data)
    while there - at >= ANSWER.size:
        length, number, status, rows, tokens, us = ANSWER.unpack_from(data, at)
        end = at + 4 + length
        if there < end:
            break
        found.append((number, Answer(status, rows, tokens, us, data[at + ANSWER.size : end])))
        at = end
    return found, data[at:]


def ask(address: str, payload: bytes, *, timeout_s: float) -> Answer:
    """One request to one worker, waiting for the answer. For callers without an event loop."""
    until = time.monotonic() + timeout_s
    buffer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(address)
            connection.sendall(frame(1, payload))
            while True:
                connection.settimeout(max(0.001, until - time.monotonic()))
                received = connection.recv(65536)
                if not received:
                    raise WorkerLost("The worker closed the connection.")
                buffer += received
                answers, buffer = take(buffer)
                if answers:
                    return answers[0][1]
        except TimeoutError:
            raise
        except OSError as error:
            raise WorkerLost(str(error)) from error
