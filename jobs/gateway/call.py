"""One HTTP request: what its headers say, its body, and the way to answer it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from jobs.gateway import problems
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.recorder import Seen
from jobs.gateway.traffic import STICKY

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

LOST = "tauon.lost"  # in the scope: a worker died over this request already
REQUEST_ID = re.compile(rb"^[0-9A-Za-z._-]{8,64}$")
_JSON = (b"application/json", b"application/vnd.api+json")


class Disconnected(Exception):
    """The caller has gone; nobody waits for an answer."""


class Call:
    """A thin view of the ASGI scope; headers are read in one pass."""

    __slots__ = ("_receive", "_send", "authorization", "begun", "content_type", "encoding", "id", "json_bytes", "length",
                 "method", "path", "scope", "seen", "sticky", "timeout_ms")  # fmt: skip

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send, fresh_id: str) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.id = fresh_id
        self.authorization = self.content_type = self.length = self.encoding = self.sticky = b""
        self.json_bytes = self.timeout_ms = b""
        self.begun = False  # the head of the answer is out
        self.seen: Seen | None = None  # where the request log keeps this one
        self._receive, self._send = receive, send
        for name, value in scope["headers"]:
            if name == b"authorization":
                self.authorization = value
            elif name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                self.length = value
            elif name == b"content-encoding":
                self.encoding = value
            elif name == b"inference-header-content-length":
                self.json_bytes = value
            elif name == b"x-request-timeout-ms":
                self.timeout_ms = value
            elif name == STICKY:
                self.sticky = value
            elif name == b"x-request-id" and REQUEST_ID.match(value):
                self.id = value.decode()

    @property
    def caller(self) -> str:
        """The address of somebody without a token."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    @property
    def word(self) -> str | bytes:
        """What decides which revision answers: the caller's own word, else the id of the request."""
        return self.sticky or self.id

    def kind(self, *also: bytes) -> bytes:
        """The media type of the body; 415 unless it is JSON or named in `also` (`image/` takes any image)."""
        if self.encoding not in (b"", b"identity"):
            raise Problem(415, "unsupported_media_type", "Compressed bodies are not taken. Send plain ones.")
        kind = self.content_type.split(b";", 1)[0].strip().lower()
        if kind not in _JSON and kind != b"" and not any(kind.startswith(one) for one in also):
            raise Problem(
                415,
                "unsupported_media_type",
                f"The body is {kind.decode('latin-1')}. Send Content-Type: application/json.",
            )
        return kind or b"application/json"

    def within_s(self, usual_s: float, most_s: float) -> float:
        """How long the caller waits: what its header says, up to `most_s`; else the endpoint's own time."""
        if not self.timeout_ms:
            return usual_s
        if not self.timeout_ms.isdigit() or not 1 <= int(self.timeout_ms) <= 3_600_000:
            raise Problem(
                400, "bad_timeout", "X-Request-Timeout-Ms is a whole number of milliseconds above zero."
            )
        return min(int(self.timeout_ms) / 1000, most_s)

    async def gone(self) -> None:
        """Return when the caller hangs up. Only once the body is read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def body(self, cap: int, timeout_s: float) -> bytes:
        """The whole body; stops reading as soon as it is larger than `cap`."""
        if self.length and self.length.isdigit() and int(self.length) > cap:
            raise problems.too_large(cap)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    part = message.get("body", b"")
                    size += len(part)
                    if size > cap:
                        raise problems.too_large(cap)
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Problem(
                408,
                "body_too_slow",
                f"The body did not arrive within {timeout_s:g} s.",
                headers=[(b"connection", b"close")],
            ) from None

    async def answer(
        self,
        status: int,
        body: bytes,
        headers: Headers | None = None,
        *,
        kind: bytes = b"application/json",
    ) -> None:
        await self._start(status, kind, body, headers or [])

    async def begin(self, headers: Headers) -> None:
        """The head of a stream of events."""
        self.begun = True
        usual = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-request-id", self.id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": [*usual, *headers]})

    async def event(self, body: bytes, *, more: bool = True) -> None:
        """One event of a stream."""
        told = b"data: %b\n\n" % body
        await self._send({"type": "http.response.body", "body": told, "more_body": more})

    async def refuse(self, problem: Problem) -> None:
        body = problem.body(path=self.path, request_id=self.id)
        if self.begun:  # too late for a status: a stream says it as its last event
            await self.event(body, more=False)
            return
        await self._start(problem.status, b"application/problem+json", body, problem.headers)

    async def _start(self, status: int, kind: bytes, body: bytes, headers: Headers) -> None:
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", kind),
                    (b"content-length", str(len(body)).encode()),
                    (b"cache-control", b"no-store"),
                    (b"x-request-id", self.id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    *headers,
                ],
            }
        )
        await self._send({"type": "http.response.body", "body": body})
