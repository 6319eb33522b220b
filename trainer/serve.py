"""A model worker: one bundle behind one Unix socket, ONNX Runtime only.

    python -m trainer serve serve.json

serve.json: {"bundle": folder, "socket": path, "threads": 1, "model_name": "m", "model_version": "3"}; the
last three may be left out. When the socket accepts, one line goes to stdout: {"ready": true, "socket": path}.
If the bundle cannot be loaded (a checksum does not match, say) the line is {"ready": false, "error": text},
and the exit code 65. SIGTERM: new requests get 503, those in flight are finished, exit code 0.

Frames, both ways, many in flight on one connection, answered in any order::

    length      4 bytes, big-endian, of what follows
    request id  4 bytes, chosen by the client, sent back with the answer
    payload     of a request: the JSON body of a v2 infer request as it came; or the five bytes `ready`
                of an answer: status (2 bytes, big-endian), rows answered (4 bytes), JSON body

Status 200: a v2 infer response; for `ready`, the v2 model metadata. 400: not a v2 request. 422: a value the
model cannot take, {"error": text, "pointer": "/inputs/0/shape"}. 500: the model failed. 503: stopping, or too
many rows wait.

Batching has no timer. Requests that arrive in one turn of the event loop run together; while a batch runs,
more queue up and are the next batch, up to ROW_CAP rows. Each is checked before it is queued, so that a bad
one fails alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import struct
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer import protocol
from trainer.bundle import Bundle, Tampered, WrongInput, open_bundle
from trainer.contract import Exit
from trainer.control import die_with_parent
from trainer.data import Columns

ROW_CAP = 32
MAX_WAITING_ROWS = 8192
MAX_FRAME_BYTES = 64 * 1024 * 1024
INLINE_BELOW_S = 0.0003  # handing a batch to a thread costs about this much; a shorter one runs on the loop
DRAIN_S = 20.0
READY = b"ready"
_HEAD = struct.Struct(">II")  # length, request id
_ANSWER = struct.Struct(">IIHI")  # length, request id, status, rows


def predict(bundle: Bundle | Path, inputs: Columns) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Probabilities and labels for raw rows, in this process."""
    loaded = open_bundle(bundle) if isinstance(bundle, Path) else bundle
    answers = loaded.probabilities(loaded.encode(inputs))
    return answers, [loaded.classes[index] for index in answers.argmax(axis=1)]


def serve(config: Path) -> int:
    """Load the bundle named in serve.json and answer until SIGTERM."""
    die_with_parent()
    settings = json.loads(config.read_text())
    try:
        bundle = open_bundle(Path(settings["bundle"]), threads=int(settings.get("threads", 1)))
        predict(bundle, bundle.sample())  # the first run allocates: nobody should wait for that
        began = time.perf_counter()
        predict(bundle, bundle.sample())
        usual_s = time.perf_counter() - began
    except Exception as error:  # whatever it is, this bundle cannot be served, and the starter must hear why
        text = str(error) if isinstance(error, Tampered) else f"{type(error).__name__}: {error}"
        print(json.dumps({"ready": False, "error": text}), flush=True)
        return Exit.BAD_DATA
    worker = Worker(
        bundle,
        name=str(settings.get("model_name", bundle.description["variant"])),
        version=str(settings.get("model_version", "1")),
        usual_s=usual_s,
    )
    asyncio.run(_serve(worker, Path(settings["socket"])))
    return Exit.OK


@dataclass(slots=True, kw_only=True)
class _Waiting:
    request: protocol.Request
    number: int
    connection: _Connection


class Worker:
    """Queues checked requests and runs them in batches."""

    def __init__(self, bundle: Bundle, *, name: str, version: str, usual_s: float = 0.0) -> None:
        self.bundle, self.name, self.version = bundle, name, version
        self.stopping = False
        self._waiting: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._running = False
        self._scheduled = False
        self._usual_s = usual_s  # how long a batch takes, lately
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    def take(self, number: int, payload: bytes, connection: _Connection) -> None:
        """Answer a frame at once, or queue its rows."""
        if payload == READY:
            connection.answer(
                number, 200, 0, protocol.metadata(self.bundle, name=self.name, version=self.version)
            )
            return
        if self.stopping or self._waiting_rows >= MAX_WAITING_ROWS:
            why = "This worker is stopping." if self.stopping else "Too many rows wait for this worker."
            connection.answer(number, 503, 0, protocol.refusal(f"{why} Try again."))
            return
        try:
            request = protocol.parse_request(payload, self.bundle)
        except protocol.NotARequest as error:
            connection.answer(number, 400, 0, protocol.refusal(str(error)))
            return
        except WrongInput as error:
            connection.answer(number, 422, 0, protocol.refusal(error.detail, error.pointer))
            return
        except Exception as error:  # a row must never take the worker down
            print(f"request failed: {error!r}", file=sys.stderr, flush=True)
            connection.answer(number, 500, 0, protocol.refusal("The model could not read these rows."))
            return
        self._waiting.append(_Waiting(request=request, number=number, connection=connection))
        self._waiting_rows += request.rows
        self._idle.clear()
        self._schedule()

    async def drained(self) -> None:
        await self._idle.wait()
        self._thread.shutdown()

    def _schedule(self) -> None:
        if not self._running and not self._scheduled and self._waiting:
            self._scheduled = True
            # at the end of this turn of the loop: whatever else has arrived by then runs along
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch = [self._waiting.popleft()]
        rows = batch[0].request.rows
        while self._waiting and rows + self._waiting[0].request.rows <= ROW_CAP:
            batch.append(self._waiting.popleft())
            rows += batch[-1].request.rows
        self._waiting_rows -= rows
        if self._usual_s < INLINE_BELOW_S:
            self._finish(batch, self._run(batch))
            return
        self._running = True
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._run, batch)
        future.add_done_callback(lambda done: self._finish(batch, done.result()))

    def _run(self, batch: list[_Waiting]) -> list[tuple[int, bytes]]:
        """Status and body for each request of the batch. If the batch fails, each gets a try of its own."""
        began = time.perf_counter()
        made: list[tuple[int, bytes]] = []
        start = 0
        try:
            answers = self.bundle.probabilities(np.concatenate([item.request.encoded for item in batch]))
            for item in batch:
                part = answers[start : start + item.request.rows]
                start += item.request.rows
                body = protocol.answer(item.request, part, self.bundle, name=self.name, version=self.version)
                made.append((200, body))
        except Exception as error:
            if len(batch) > 1:
                return [self._run([item])[0] for item in batch]
            print(f"model failed: {error!r}", file=sys.stderr, flush=True)
            return [(500, protocol.refusal("The model failed on these rows."))]
        self._usual_s += 0.2 * (time.perf_counter() - began - self._usual_s)
        return made

    def _finish(self, batch: list[_Waiting], answers: list[tuple[int, bytes]]) -> None:
        self._running = False
        for item, (status, body) in zip(batch, answers, strict=True):
            item.connection.answer(item.number, status, item.request.rows if status == 200 else 0, body)
        if self._waiting:
            self._schedule()
        else:
            self._idle.set()


class _Connection(asyncio.Protocol):
    """Cuts the byte stream of one client into frames."""

    def __init__(self, worker: Worker, connections: set[_Connection]) -> None:
        self._worker = worker
        self._connections = connections
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            length, number = _HEAD.unpack_from(self._buffer, at)
            if not 4 <= length <= MAX_FRAME_BYTES:
                self.answer(
                    number, 400, 0, protocol.refusal(f"A frame holds at most {MAX_FRAME_BYTES} bytes.")
                )
                self.close()  # what follows cannot be told apart any more
                return
            end = at + 4 + length
            if len(self._buffer) < end:
                break
            self._worker.take(number, bytes(self._buffer[at + _HEAD.size : end]), self)
            at = end
        del self._buffer[:at]

    def answer(self, number: int, status: int, rows: int, body: bytes) -> None:
        if self._transport is None:  # the client has gone
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._send)
        self._out.append(_ANSWER.pack(len(body) + 10, number, status, rows) + body)

    def close(self) -> None:
        self._send()
        if self._transport is not None:
            self._transport.close()

    def _send(self) -> None:
        """All answers of one turn of the loop in one write."""
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()


async def _serve(worker: Worker, path: Path) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connections: set[_Connection] = set()
    listener = _listen(path)
    server = await loop.create_unix_server(lambda: _Connection(worker, connections), sock=listener)
    print(json.dumps({"ready": True, "socket": str(path)}), flush=True)
    await stop.wait()
    server.close()
    path.unlink(missing_ok=True)
    worker.stopping = True
    try:
        await asyncio.wait_for(worker.drained(), timeout=DRAIN_S)
    except TimeoutError:
        print("requests were still running after the time to drain", file=sys.stderr, flush=True)
    for connection in list(connections):
        connection.close()
    await asyncio.sleep(0)


def _listen(path: Path) -> socket.socket:
    """A socket only its owner may use. One that a killed worker left behind is replaced; a file is not."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(1024)
    listener.setblocking(False)
    return listener
