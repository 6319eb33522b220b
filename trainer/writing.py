"""Writes several texts at once: each step asks the graph for the next character of all of them together."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from trainer import protocol
from trainer.bundle import Bundle
from trainer.openai import Writing
from trainer.wire import PIECE

AT_ONCE = 32


class Caller(Protocol):
    def answer(
        self, number: int, status: int, rows: int, body: bytes, *, us: int = 0, tokens: int = 0
    ) -> None: ...


class Ticket:
    """One writing and who waits for it."""

    __slots__ = ("connection", "number", "request", "started", "until", "us", "writing")

    def __init__(self, writing: Writing, number: int, connection: Caller, until: float) -> None:
        self.writing, self.number, self.until = writing, number, until
        self.connection: Caller | None = connection  # None: its caller has gone
        self.started = False
        self.us = 0.0


class Desk:
    """The texts that are being written. New ones join at the next step; nobody waits for another's end."""

    def __init__(self, bundle: Bundle, thread: ThreadPoolExecutor) -> None:
        self._bundle, self._thread = bundle, thread
        self._waiting: deque[Ticket] = deque()
        self._active: list[Ticket] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def count(self) -> int:
        return len(self._waiting) + len(self._active)

    def add(self, ticket: Ticket) -> None:
        self._waiting.append(ticket)
        if not self.busy:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def drained(self) -> None:
        if self._task is not None:
            await self._task

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or self._active:
            while self._waiting and len(self._active) < AT_ONCE:
                self._active.append(self._waiting.popleft())
            self._active = [one for one in self._active if self._still_wanted(one)]
            if not self._active:
                continue
            try:
                pieces = await loop.run_in_executor(self._thread, self._step, list(self._active))
            except Exception as error:
                print(f"writing failed: {error!r}", file=sys.stderr, flush=True)
                for one in self._active:
                    self._tell(one, 500, protocol.refusal("The model failed on this text."))
                self._active = []
                continue
            for one, piece in zip(list(self._active), pieces, strict=True):
                self._report(one, piece)
            self._active = [one for one in self._active if one.writing.finish is None]

    def _still_wanted(self, one: Ticket) -> bool:
        if one.connection is None:
            return False
        if time.monotonic() > one.until:
            self._tell(one, 504, protocol.refusal("The text was not written before the deadline."))
            return False
        return True

    def _step(self, active: list[Ticket]) -> list[str]:
        began = time.perf_counter()
        rows = np.empty(len(active), dtype=object)
        rows[:] = [one.writing.row for one in active]
        shares = self._bundle.probabilities(rows)
        pieces = [one.writing.take(share) for one, share in zip(active, shares, strict=True)]
        us = (time.perf_counter() - began) * 1e6 / len(active)
        for one in active:
            one.us += us
        return pieces

    def _report(self, one: Ticket, piece: str) -> None:
        writing = one.writing
        if writing.streams:
            if piece:
                self._tell(one, PIECE, writing.piece(piece, first=not one.started))
                one.started = True
            if writing.finish is not None:
                if not one.started:
                    self._tell(one, PIECE, writing.piece("", first=True))
                pieces = writing.last_pieces()
                for told in pieces[:-1]:
                    self._tell(one, PIECE, told)
                self._tell(one, 200, pieces[-1])
        elif writing.finish is not None:
            self._tell(one, 200, writing.answer())

    def _tell(self, one: Ticket, status: int, body: bytes) -> None:
        if one.connection is not None:
            told = status == 200
            one.connection.answer(
                one.number, status, int(told), body, us=int(one.us), tokens=one.writing.tokens if told else 0
            )
