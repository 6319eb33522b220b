"""The frames of a model worker on its socket; `trainer.serve` says what they mean."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

from trainer import protocol

MAX_FRAME_BYTES = 64 * 1024 * 1024
READY = b"ready"
PIECE = 100  # the status of an answer that is not the last one to its request
MARK = b"\x01"
HEAD = struct.Struct(">II")  # length, request id
ANSWER = struct.Struct(">IIHIII")  # length, request id, status, rows, tokens, microseconds
ENVELOPE = struct.Struct(">ccII")  # the mark, a letter, milliseconds to begin within, length of the head
_ANSWER_EXTRA = ANSWER.size - 4  # what `length` counts before the body


class Connection(asyncio.Protocol):
    """Cuts the byte stream of one client into frames."""

    def __init__(self, worker: Any, connections: set[Connection]) -> None:
        self._worker = worker
        self._connections = connections
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._queued: dict[int, Any] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        for waiting in self._queued.values():
            waiting.connection = None  # nobody is left to answer: what still queues is not run
        self._queued.clear()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
            self._buffer.clear()
        at, there = 0, len(data)
        take, queued = self._worker.take, self._queued
        while there - at >= HEAD.size:
            length, number = HEAD.unpack_from(data, at)
            if not 4 <= length <= MAX_FRAME_BYTES:
                self.answer(
                    number, 400, 0, protocol.refusal(f"A frame holds at most {MAX_FRAME_BYTES} bytes.")
                )
                self.close()  # what follows cannot be told apart any more
                return
            end = at + 4 + length
            if there < end:
                break
            payload = data[at + HEAD.size : end]
            if payload[:2] == b"\x01X":
                self._forget(payload)
            elif waiting := take(number, payload, self):
                queued[number] = waiting
            at = end
        if at < there:
            self._buffer += data[at:]

    def answer(
        self, number: int, status: int, rows: int, body: bytes, *, us: int = 0, tokens: int = 0
    ) -> None:
        if status != PIECE:
            self._queued.pop(number, None)
        if self._transport is None:  # the client has gone
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._send)
        self._out.append(ANSWER.pack(len(body) + _ANSWER_EXTRA, number, status, rows, tokens, us) + body)

    def close(self) -> None:
        self._send()
        if self._transport is not None:
            self._transport.close()

    def _forget(self, payload: bytes) -> None:
        if len(payload) >= ENVELOPE.size:
            waiting = self._queued.pop(ENVELOPE.unpack_from(payload)[3], None)
            if waiting is not None:
                waiting.connection = None

    def _send(self) -> None:
        """All answers of one turn of the loop in one write."""
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()
