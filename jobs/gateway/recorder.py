"""Hands a sample of requests and their answers to the scribe, a process of its own that masks and keeps them.

It is called when the answer is out, and only where somebody has turned the request log of an endpoint on. It never
waits: what the scribe cannot read at once is held in memory up to a bound. Beyond it, and beyond so many a second
of one endpoint, records are dropped; they are counted, and the count is told with the next one that gets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import struct
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.gateway.frames import Answer
from jobs.gateway.snapshot import Route, Snapshot, Token
from jobs.gateway.traffic import WHOLE

log = logging.getLogger("tauon.gateway")

FRAME = struct.Struct(">IIII")  # bytes of the head, the rules, the request's body, the answer's body
MOST_PER_S = 200  # of one endpoint, at one gateway
MOST_HELD_BYTES = 8 * 1024 * 1024  # not yet read by the scribe
MOST_STREAM_BYTES = 64 * 1024  # of the pieces of one streamed answer
TELL_AFTER_S = 1.0  # a count of dropped records that no record took along
AGAIN_AFTER_S = 1.0  # between two starts of a scribe
LEAVE_S = 3.0


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request on its way that will be recorded."""

    route: Route  # that answered, or was to answer
    token: Token | None
    letter: bytes
    head: bytes
    began: float = field(default_factory=time.monotonic)
    body: bytes = b""
    answer: Answer | None = None
    pieces: list[bytes] = field(default_factory=list)
    _size: int = 0

    def hear(self, then: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """A listener to the pieces of a stream that keeps the first of them."""

        def piece(body: bytes) -> None:
            if self._size < MOST_STREAM_BYTES:
                self._size += len(body)
                self.pieces.append(body)
            then(body)

        return piece


class Recorder:
    """The records of one gateway. Nothing runs until a snapshot names an endpoint whose requests are logged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._second = 0
        self._this_second: dict[str, int] = {}
        self._dropped: dict[tuple[str, str], int] = {}  # by tenant and endpoint
        self._teller: asyncio.TimerHandle | None = None

    def follow(self, snapshot: Snapshot) -> None:
        """Start the scribe once there is something to write; it stays until the gateway ends."""
        wanted = any(route.log_share for route in snapshot.routes.values())
        if wanted and self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep_scribe())

    def wants(self, route: Route) -> bool:
        """Whether this request falls into the sample."""
        return route.log_share > 0 and random.random() * WHOLE < route.log_share

    def saw(self, seen: Seen, call_id: str, status: int, said: bytes) -> None:
        """A request of the long way was answered with this body."""
        answer = seen.answer
        rows = answer.rows if answer is not None else 0
        us = int((time.monotonic() - seen.began) * 1e6)
        streamed = bool(seen.pieces) and status == 200
        if streamed:
            said = b"\n".join([*seen.pieces, said])  # the last piece is the answer itself
        self.record(
            seen.route, seen.token, call_id, body=seen.body, said=said, status=status, rows=rows, us=us,
            letter=seen.letter.decode(), kind=seen.head.decode("latin-1"), streamed=streamed,
            binary=answer is not None and answer.status == 206,
        )  # fmt: skip

    def record(
        self, route: Route, token: Token | None, call_id: str, *, body: bytes, said: bytes, **facts: Any
    ) -> None:
        """Hand one over in the next turn of the loop: the answers of this turn go out first.

        `facts`: status, rows, us and letter; kind, streamed and binary where they are not the usual ones.
        `binary`: four bytes of `said` say where the answer's JSON ends.
        """
        asyncio.get_running_loop().call_soon(self._hand_over, route, token, call_id, body, said, facts)

    def _hand_over(
        self, route: Route, token: Token | None, call_id: str, body: bytes, said: bytes, facts: dict[str, Any]
    ) -> None:
        out = self._room(route.id, len(body) + len(said))
        if out is None:
            self._drop(route)
            return
        head = {
            "id": call_id, "at": _now(), "tenant": route.tenant_id, "endpoint": route.id,
            "revision": route.model_version, "token": token.id if token is not None else "",
            "kind": "", "streamed": False, "binary": False, **facts,
        }  # fmt: skip
        if dropped := self._dropped.pop((route.tenant_id, route.id), 0):
            head["dropped"] = dropped
        _write(out, head, route.log_rules, body, said)

    async def close(self) -> None:
        """Let the scribe finish what it has; it ends with its input."""
        await asyncio.sleep(0)  # what was to be handed over in this turn
        self._tell()
        if self._teller is not None:
            self._teller.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await process.wait()
                return
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    def _room(self, endpoint: str, size: int) -> Any:
        """Where to write, if there is room for one more of this endpoint."""
        out = self._out()
        if out is None or out.get_write_buffer_size() + size > MOST_HELD_BYTES:
            return None
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._this_second = second, {}
        count = self._this_second.get(endpoint, 0)
        if count >= MOST_PER_S:
            return None
        self._this_second[endpoint] = count + 1
        return out

    def _out(self) -> Any:
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None:
            return None
        return None if process.stdin.transport.is_closing() else process.stdin.transport

    def _drop(self, route: Route) -> None:
        key = (route.tenant_id, route.id)
        self._dropped[key] = self._dropped.get(key, 0) + 1
        if self._teller is None:
            self._teller = asyncio.get_running_loop().call_later(TELL_AFTER_S, self._tell)

    def _tell(self) -> None:
        """What was dropped and not told yet; again later where nobody listens."""
        self._teller = None
        out = self._out()
        if out is None:
            if self._dropped and self._keeper is not None:
                self._teller = asyncio.get_running_loop().call_later(TELL_AFTER_S, self._tell)
            return
        for (tenant, endpoint), count in self._dropped.items():
            _write(
                out, {"at": _now(), "tenant": tenant, "endpoint": endpoint, "dropped": count}, b"", b"", b""
            )
        self._dropped.clear()

    async def _keep_scribe(self) -> None:
        """Start it, and start another should it end."""
        root = str(Path(__file__).resolve().parents[2])
        while True:
            try:
                # of its own session: a Ctrl-C in the terminal is for the gateway, whose end ends it, too
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "jobs.gateway.scribe", str(self._folder),
                    stdin=PIPE, stdout=DEVNULL, start_new_session=True,
                    env={"PATH": os.defpath, "PYTHONPATH": root, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
                )  # fmt: skip
                code = await self._process.wait()
                log.warning("the scribe of the request log ended (%s); another one is started", code)
            except OSError as error:
                log.warning("the scribe of the request log does not start: %s", error)
            await asyncio.sleep(AGAIN_AFTER_S)


def _write(out: Any, head: dict[str, Any], rules: bytes, body: bytes, said: bytes) -> None:
    told = json.dumps(head).encode()
    sizes = FRAME.pack(len(told), len(rules), len(body), len(said))
    out.write(b"".join((sizes, told, rules, body, said)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
