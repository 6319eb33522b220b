"""A model worker: one bundle behind one Unix socket, ONNX Runtime only.

    python -m trainer serve serve.json

serve.json: {"bundle": folder, "socket": path, "threads": 1, "model_name": "m", "model_version": "3",
"max_waiting_rows": 8192}; the last four may be left out. When the socket accepts, one line goes to stdout:
{"ready": true, "socket": path}. If the bundle cannot be loaded (a checksum does not match, say) the line is
{"ready": false, "error": text}, and the exit code 65. SIGTERM: new requests get 503, those in flight are
finished, exit code 0.

Frames, both ways, many in flight on one connection, answered in any order::

    length      4 bytes, big-endian, of what follows
    request id  4 bytes, chosen by the client, sent back with the answer
    payload     of a request: see below
                of an answer: status (2 bytes), rows answered, tokens read, microseconds of computing (4 each), body

A payload is the JSON body of a v2 infer request as it came; or the five bytes `ready`; or an envelope: the byte
1, one letter, milliseconds within which the work must begin (4 bytes, 0: any time), the length of a head
(4 bytes), the head, and the body. The letters::

    J  a v2 infer request, all JSON          B  one with binary tensors; the head: bytes of its JSON, as digits
    P  rows for humans; the head: its type   E  texts to embed, as the OpenAI API asks for it
    X  forget the request whose id is the head's length: its caller has gone; never answered

Status 100: a piece of a stream, more follow. 200: the answer or its last piece; for `ready`, the v2 model
metadata. 206: 4 bytes that say where the JSON of the body ends and its binary tensors begin, then the body.
400: not a request. 422: a value the model cannot take, {"error": text, "pointer": "/inputs/0/shape"}. 500: the
model failed. 503: stopping, or too many rows wait. 504: its turn came too late.

Batching has no timer. Requests that arrive in one turn of the event loop run together; while a batch runs,
more queue up and are the next batch, up to ROW_CAP rows. Each is checked before it is queued, so that a bad
one fails alone. Whether somebody still waits for it is looked at when its turn comes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import signal
import socket
import stat
import sys
import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer import openai, plain, protocol
from trainer.bundle import Bundle, Tampered, WrongInput, open_bundle
from trainer.contract import Exit
from trainer.control import die_with_parent
from trainer.data import Columns
from trainer.watch import Watch
from trainer.wire import ENVELOPE, MARK, READY, Connection
from trainer.writing import Desk, Ticket

ROW_CAP = 32
MAX_WAITING_ROWS = 8192
MAX_WRITINGS = 128
INLINE_BELOW_S = 0.0003  # handing a batch to a thread costs about this much; a shorter one runs on the loop
DRAIN_S = 20.0
_TOO_LATE = "Its turn came after its deadline, so it was not run. Send fewer at once, or allow more time."


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
        max_waiting_rows=int(settings.get("max_waiting_rows", MAX_WAITING_ROWS)),
        watch=Watch(config.with_name("watch.json"), bundle.classes, bundle.profile),
    )
    gc.collect()
    gc.freeze()  # what is loaded now stays: the collector need not walk it again
    _run(_serve(worker, Path(settings["socket"])))
    return Exit.OK


class _Waiting:
    """A checked request in the queue."""

    __slots__ = ("connection", "number", "request", "until")

    def __init__(
        self, request: protocol.Request, number: int, connection: Connection | None, until: float
    ) -> None:
        self.request, self.number = request, number
        self.connection = connection  # None: its caller has gone
        self.until = until


class Worker:
    """Queues checked requests and runs them in batches."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        name: str,
        version: str,
        usual_s: float = 0.0,
        max_waiting_rows: int = MAX_WAITING_ROWS,
        watch: Watch | None = None,
    ) -> None:
        self.bundle, self.name, self.version = bundle, name, version
        self.watch = watch or Watch()
        self.stopping = False
        self._max_waiting_rows = max_waiting_rows
        self._waiting: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._running = False
        self._scheduled = False
        self._usual_s = usual_s  # how long a batch takes, lately
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._desk = Desk(bundle, self._thread)
        self._embedder: openai.Embedder | None = None

    def take(self, number: int, payload: bytes, connection: Connection) -> _Waiting | Ticket | None:
        """Answer a frame at once, or queue its rows."""
        if payload == READY:
            connection.answer(
                number, 200, 0, protocol.metadata(self.bundle, name=self.name, version=self.version)
            )
            return None
        if self.stopping or self._waiting_rows >= self._max_waiting_rows:
            connection.answer(number, 503, 0, self._busy())
            return None
        try:
            if payload[:2] == b"\x01W":
                return self._write(number, payload, connection)
            if payload[:2] == b"\x01E":
                self._embed(number, payload, connection)
                return None
            request, within_s = self._parse(payload)
        except protocol.NotARequest as error:
            connection.answer(number, 400, 0, protocol.refusal(str(error)))
            return None
        except WrongInput as error:
            connection.answer(number, 422, 0, protocol.refusal(error.detail, error.pointer))
            return None
        except Exception as error:  # a row must never take the worker down
            print(f"request failed: {error!r}", file=sys.stderr, flush=True)
            connection.answer(number, 500, 0, protocol.refusal("The model could not read these rows."))
            return None
        self.watch.asked(request.columns, request.rows)
        until = time.monotonic() + within_s if within_s else math.inf
        waiting = _Waiting(request, number, connection, until)
        self._waiting.append(waiting)
        self._waiting_rows += request.rows
        self._idle.clear()
        self._schedule()
        return waiting

    async def drained(self) -> None:
        await self._idle.wait()
        await self._desk.drained()
        self._thread.shutdown()

    def _write(self, number: int, payload: bytes, connection: Connection) -> Ticket | None:
        if self._desk.count >= MAX_WRITINGS:
            connection.answer(
                number, 503, 0, protocol.refusal("Too many texts are being written. Try again.")
            )
            return None
        _mark, _letter, within_ms, size = ENVELOPE.unpack_from(payload)
        kind, _, call_id = payload[ENVELOPE.size : ENVELOPE.size + size].decode("latin-1").partition(" ")
        body = payload[ENVELOPE.size + size :]
        writing = openai.Writing(body, self.bundle, name=self.name, chat=kind == "chat", call_id=call_id)
        until = time.monotonic() + within_ms / 1000 if within_ms else math.inf
        ticket = Ticket(writing, number, connection, until)
        self._desk.add(ticket)
        return ticket

    def _embed(self, number: int, payload: bytes, connection: Connection) -> None:
        if not openai.takes_text(self.bundle):
            raise WrongInput("/model", "This model reads no text, so it has no embeddings of any.")
        if self._embedder is None:
            self._embedder = openai.Embedder(self.bundle.folder)
        began = time.perf_counter()
        size = ENVELOPE.unpack_from(payload)[3]
        body, rows, tokens = openai.embeddings(
            payload[ENVELOPE.size + size :], self.bundle, self._embedder, name=self.name
        )
        us = int((time.perf_counter() - began) * 1e6)
        connection.answer(number, 200, rows, body, us=us, tokens=tokens)

    def _parse(self, payload: bytes) -> tuple[protocol.Request, float | None]:
        """The request, and within how many seconds it must begin."""
        if payload[:1] != MARK:
            request = protocol.parse_request(payload, self.bundle)
            return request, request.within_s
        _mark, letter, within_ms, size = ENVELOPE.unpack_from(payload)
        body = payload[ENVELOPE.size + size :]
        if letter == b"J":
            request = protocol.parse_request(body, self.bundle)
        else:
            head = payload[ENVELOPE.size : ENVELOPE.size + size].decode("latin-1")
            if letter == b"B":
                json_bytes = int(head) if head.isdigit() else -1
                request = protocol.parse_request(body, self.bundle, json_bytes=json_bytes)
            elif letter == b"P":
                request = plain.parse_plain(body, self.bundle, kind=head)
            else:
                raise protocol.NotARequest("This worker does not know what is asked of it.")
        limits = [one for one in (within_ms / 1000, request.within_s) if one]
        return request, min(limits, default=None)

    def _busy(self) -> bytes:
        if self.stopping:
            return protocol.refusal("This worker is stopping. Try again.")
        wait_s = max(1, math.ceil(self._waiting_rows / ROW_CAP * self._usual_s))
        text = f"{self._waiting_rows} rows wait for this worker, and that is all it takes. Try again."
        return protocol.refusal(text, retry_after_s=wait_s)

    def _schedule(self) -> None:
        if not self._running and not self._scheduled and self._waiting:
            self._scheduled = True
            # at the end of this turn of the loop: whatever else has arrived by then runs along
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch: list[_Waiting] = []
        rows = 0
        now = time.monotonic()
        while self._waiting:
            item = self._waiting[0]
            if batch and rows + item.request.rows > ROW_CAP:
                break
            self._waiting.popleft()
            self._waiting_rows -= item.request.rows
            if item.connection is None:
                continue
            if now > item.until:
                item.connection.answer(item.number, 504, 0, protocol.refusal(_TOO_LATE))
                continue
            batch.append(item)
            rows += item.request.rows
        if not batch:
            self._finish([], [])
        elif self._usual_s < INLINE_BELOW_S:
            self._finish(batch, self._run(batch))
        else:
            self._running = True
            future = asyncio.get_running_loop().run_in_executor(self._thread, self._run, batch)
            future.add_done_callback(lambda done: self._finish(batch, done.result()))

    def _run(self, batch: list[_Waiting]) -> list[tuple[int, bytes, int]]:
        """Status, body and microseconds for each request of the batch. If it fails, each gets a try of its own."""
        began = time.perf_counter()
        made: list[tuple[int, bytes, int]] = []
        start = 0
        try:
            encoded = [item.request.encoded for item in batch]
            rows = encoded[0] if len(encoded) == 1 else np.concatenate(encoded)
            results = protocol.Results(self.bundle.probabilities(rows))
            self.watch.saw(results.array)
            us_per_row = (time.perf_counter() - began) * 1e6 / len(rows)
            for item in batch:
                request = item.request
                us = int(us_per_row * request.rows) + 1
                if request.plain:
                    body = plain.plain_answer(
                        request, results, start, self.bundle, name=self.name, version=self.version
                    )
                    made.append((200, body, us))
                else:
                    body, json_bytes = protocol.answer(
                        request, results, start, self.bundle, name=self.name, version=self.version
                    )
                    if json_bytes is None:
                        made.append((200, body, us))
                    else:
                        made.append((206, json_bytes.to_bytes(4, "big") + body, us))
                start += request.rows
        except Exception as error:
            if len(batch) > 1:
                return [self._run([item])[0] for item in batch]
            print(f"model failed: {error!r}", file=sys.stderr, flush=True)
            return [(500, protocol.refusal("The model failed on these rows."), 0)]
        self._usual_s += 0.2 * (time.perf_counter() - began - self._usual_s)
        return made

    def _finish(self, batch: list[_Waiting], answers: list[tuple[int, bytes, int]]) -> None:
        self._running = False
        for item, (status, body, us) in zip(batch, answers, strict=True):
            if item.connection is not None:
                rows = item.request.rows if status < 300 else 0
                item.connection.answer(item.number, status, rows, body, us=us)
        if self._waiting:
            self._schedule()
        else:
            self._idle.set()


def _run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop where it is installed: it halves what a frame costs."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(worker: Worker, path: Path) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    connections: set[Connection] = set()
    listener = _listen(path)
    server = await loop.create_unix_server(lambda: Connection(worker, connections), sock=listener)
    print(json.dumps({"ready": True, "socket": str(path)}), flush=True)
    watching = loop.create_task(worker.watch.write_on())
    await stop.wait()
    watching.cancel()
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
