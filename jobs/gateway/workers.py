"""Connections to model workers: many requests in flight on one Unix socket each, reconnecting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import cast

from jobs.gateway import frames
from jobs.gateway.frames import Answer, WorkerLost

log = logging.getLogger("tauon.gateway")

FIRST_RETRY_S = 0.02
LAST_RETRY_S = 1.0
AFTER_LOSS_S = 0.1
PIECE = 100  # of a stream; more follow

Done = Callable[[Answer | None], None]


class Worker:
    """One model worker by its address. Keeps connecting until it is let go."""

    def __init__(
        self, address: str, announce: Callable[[], None], behind: Callable[[], None] = lambda: None
    ) -> None:
        self.address = address
        self._behind = behind
        self.stopping = False  # it said so itself: it finishes what it has and takes nothing new
        self._announce = announce
        self._waiting: dict[int, Done] = {}
        self._number = 0
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._keeper = asyncio.get_running_loop().create_task(self._keep_connected())

    @property
    def ready(self) -> bool:
        return self._transport is not None and not self.stopping

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def send(self, payload: bytes, done: Done) -> int:
        """Send one request; `done` hears its answer, or None if the connection breaks first."""
        if self._transport is None:
            raise WorkerLost
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        self._waiting[number] = done
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)  # one write for all of this turn of the loop
        self._out.append(frames.frame(number, payload))
        return number

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more: the worker need not begin it."""
        if self._waiting.pop(number, None) is not None and self._transport is not None:
            if not self._out:
                asyncio.get_running_loop().call_soon(self._flush)
            self._out.append(frames.forget(number))

    async def ask(self, payload: bytes, on_piece: Callable[[bytes], None] | None = None) -> Answer:
        """Send one request and wait for its answer; WorkerLost if the connection breaks first.

        `on_piece` hears what comes before the last part of a stream.
        """
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

        def done(answer: Answer | None) -> None:
            if answer is not None and answer.status == PIECE:
                if on_piece is not None:
                    on_piece(answer.body)
            elif not future.done():
                future.set_result(answer)

        number = self.send(payload, done)
        try:
            answer = await future
        finally:
            self.forget(number)  # timed out or given up
        if answer is None:
            raise WorkerLost
        return answer

    async def let_go(self) -> None:
        """Stop connecting; what is in flight may still be answered."""
        self._keeper.cancel()
        for _ in range(600):
            if not self._waiting:
                break
            await asyncio.sleep(0.05)
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _answered(self, answers: list[tuple[int, Answer]]) -> None:
        """Everything one read brought; those who answer callers by themselves do so in one go behind it."""
        for number, answer in answers:
            done = self._waiting.get(number)
            if done is not None:
                if answer.status != PIECE:
                    del self._waiting[number]
                done(answer)
        self._behind()

    def _connected(self, transport: asyncio.Transport) -> None:
        self._transport, self.stopping = transport, False
        self._announce()

    def _lost(self) -> None:
        self._transport = None
        self._out.clear()
        lost, self._waiting = list(self._waiting.values()), {}
        self._announce()
        for done in lost:
            done(None)

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = FIRST_RETRY_S
        while True:
            try:
                _transport, line = await loop.create_unix_connection(lambda: _Line(self), self.address)
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LAST_RETRY_S)
                continue
            wait_s = FIRST_RETRY_S
            await line.closed.wait()
            # a dying process may close its connections before its listener: do not fall into that again
            await asyncio.sleep(AFTER_LOSS_S)


class _Line(asyncio.Protocol):
    """One connection of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._buffer = b""
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._worker._connected(cast("asyncio.Transport", transport))  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        answers, self._buffer = frames.take(self._buffer + data if self._buffer else data)
        self._worker._answered(answers)

    def connection_lost(self, error: Exception | None) -> None:
        self._worker._lost()
        self.closed.set()


class Workers:
    """Every worker the present snapshot names. `behind` is called behind each read of answers."""

    def __init__(self, behind: Callable[[], None] = lambda: None) -> None:
        self._behind = behind
        self._workers: dict[str, Worker] = {}
        self._news = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()

    def follow(self, addresses: Iterable[str]) -> None:
        """Connect to new addresses, let go of those no longer named."""
        wanted = set(addresses)
        for address in wanted - self._workers.keys():
            self._workers[address] = Worker(address, self._announce, self._behind)
        for address in self._workers.keys() - wanted:
            task = asyncio.get_running_loop().create_task(self._workers.pop(address).let_go())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._announce()

    def pick(self, addresses: Iterable[str]) -> Worker | None:
        """The ready worker with the least to do."""
        best = None
        for address in addresses:
            worker = self._workers.get(address)
            if worker is not None and worker.ready and (best is None or worker.in_flight < best.in_flight):
                best = worker
        return best

    async def news(self, timeout_s: float) -> None:
        """Wait until a worker connects, is lost or is named anew, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    async def close(self) -> None:
        self.follow(())
        for task in self._leaving:
            task.cancel()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
