"""The frames a model worker speaks (see `trainer/serve.py`). Standard library only."""

from __future__ import annotations

import socket
import struct
import time
from typing import NamedTuple

HEAD = struct.Struct(">II")  # length of what follows, request id
ANSWER = struct.Struct(">IIHI")  # the same, then status and rows
ANSWER_EXTRA = ANSWER.size - 4  # what `length` counts before the body


class Answer(NamedTuple):
    """What a worker said to one request."""

    status: int
    rows: int
    body: bytes


class WorkerLost(ConnectionError):
    """The worker's connection broke before it answered."""


def frame(number: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload) + 4, number) + payload


def take(buffer: bytearray) -> list[tuple[int, Answer]]:
    """Cut every whole answer off the front of the buffer."""
    found = []
    at = 0
    while len(buffer) - at >= ANSWER.size:
        length, number, status, rows = ANSWER.unpack_from(buffer, at)
        end = at + 4 + length
        if len(buffer) < end:
            break
        found.append((number, Answer(status, rows, bytes(buffer[at + ANSWER.size : end]))))
        at = end
    del buffer[:at]
    return found


def ask(address: str, payload: bytes, *, timeout_s: float) -> Answer:
    """One request to one worker, waiting for the answer. For callers without an event loop."""
    until = time.monotonic() + timeout_s
    buffer = bytearray()
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
                if answers := take(buffer):
                    return answers[0][1]
        except TimeoutError:
            raise
        except OSError as error:
            raise WorkerLost(str(error)) from error
