"""The OpenAI API of an endpoint: /v1/models, /v1/embeddings, /v1/completions, /v1/chat/completions."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from jobs.gateway import asking, problems, usage
from jobs.gateway.call import Call, Disconnected
from jobs.gateway.frames import Answer
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.snapshot import Route, Token

if TYPE_CHECKING:
    from jobs.gateway.app import Gateway

DONE = b"[DONE]"


async def answer(gateway: Gateway, call: Call, route: Route, token: Token | None, rest: list[str]) -> None:
    match rest:
        case ["models"]:
            _only_get(call)
            await call.answer(200, _json({"object": "list", "data": [_model(route)]}))
        case ["models", name] if name == route.slug:
            _only_get(call)
            await call.answer(200, _json(_model(route)))
        case ["models", _]:
            raise problems.not_found(f"The model behind this endpoint is called {route.slug}.")
        case ["embeddings"]:
            call.kind()
            await gateway.infer(call, route, token, letter=b"E")
        case ["completions"]:
            await _write(gateway, call, route, token, kind="text")
        case ["chat", "completions"]:
            await _write(gateway, call, route, token, kind="chat")
        case _:
            raise problems.not_found("Here are /v1/models, embeddings, completions and chat/completions.")


async def _write(gateway: Gateway, call: Call, route: Route, token: Token | None, *, kind: str) -> None:
    if call.method != "POST":
        raise problems.wrong_method("POST")
    call.kind()
    call_id = f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{call.id.removeprefix('req_')}"
    head = f"{kind} {call_id}".encode()
    await gateway.infer(call, route, token, letter=b"W", head=head, stream=Stream(gateway, call))


class Stream:
    """Sends the pieces of one answer as they come; a caller that does not stream gets none."""

    def __init__(self, gateway: Gateway, call: Call) -> None:
        self._gateway, self._call = gateway, call
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None
        self._began = time.monotonic()
        self._headers: Headers = []
        self.sent = 0

    @property
    def begun(self) -> bool:
        return self._sender is not None

    def start(self, headers: Headers) -> None:
        self._headers = headers

    def piece(self, body: bytes) -> None:
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())
        self._pieces.put_nowait(body)

    async def finish(self, last: bytes) -> None:
        """After the usage line: the last piece, and the end."""
        await self._drain()
        await self._call.event(last)
        await self._call.event(DONE, more=False)

    async def broken(self, route: Route, token: Token | None, error: BaseException) -> None:
        """The caller hung up, or the worker died midway: what was sent is counted."""
        sent = self.sent
        if self._sender is not None:
            self._sender.cancel()
        if sent and isinstance(error, Disconnected | Problem | TimeoutError):
            us = asking.us_since(self._began)
            told = Answer(status=200, rows=1, tokens=sent, compute_us=0, body=b"")
            self._gateway.write_down(usage.line(self._call.id, route, token, told, us))

    async def _send(self) -> None:
        await self._call.begin(self._headers)
        while True:
            body = await self._pieces.get()
            try:
                await self._call.event(body)
                self.sent += 1
            finally:
                self._pieces.task_done()

    async def _drain(self) -> None:
        await self._pieces.join()
        if self._sender is not None:
            self._sender.cancel()


def _model(route: Route) -> dict[str, object]:
    return {"id": route.slug, "object": "model", "created": 0, "owned_by": route.tenant_id}


def _only_get(call: Call) -> None:
    if call.method not in ("GET", "HEAD"):
        raise problems.wrong_method("GET, HEAD")


def _json(said: object) -> bytes:
    return json.dumps(said, ensure_ascii=False).encode()
