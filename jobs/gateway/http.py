"""HTTP for `uvicorn --http jobs.gateway.http:Protocol`: infer requests the short way, the rest through ASGI.

Nearly every request is the same: POST to an infer address, a known token, a small JSON body, a worker at hand.
Such a one goes from the parser to the worker and back without a task or a queue in between; what is out of the
ordinary in any way is handed to the ASGI app, body and all. Both ways answer alike.

Who sends headers or a body too slowly is cut off, and connections nobody uses are closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from jobs.gateway import admission, frames, limits
from jobs.gateway.call import LOST, REQUEST_ID
from jobs.gateway.frames import Answer, WorkerLost
from jobs.gateway.front import Short, front_of
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.traffic import STICKY

log = logging.getLogger("tauon.gateway")

SHORT_BODY = 64 * 1024  # larger bodies go the long way, which pauses the sender
HEAD_LIMIT = 64 * 1024
LINGER_S = 0.5  # at the end of a gateway: a request that is on its way already is still answered
_JSON = b"application/json"
_ODD = frozenset(
    (b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"inference-header-content-length",
     b"x-request-timeout-ms")
)  # fmt: skip


class Protocol(HttpToolsProtocol):
    """One connection of a caller."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self.front = front_of(self.app)
        self.gateway = self.front.gateway
        self._since = time.monotonic()  # of what the connection is doing now
        self._reading = False  # a request is on its way in
        self._in_headers = False
        self._head_bytes = 0
        self._leaving = False  # the gateway is being stopped

    # -- reading ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", transport))
        self.front.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.front.connections.discard(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._reading = self._in_headers = True
        self._head_bytes = 0
        self._since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_LIMIT:
            self._cut_off(431, "headers_too_large", f"The headers hold more than {HEAD_LIMIT} bytes.")
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self.transport.is_closing():
            return
        short = self._short()
        if short is not None:
            self.cycle = cast("RequestResponseCycle", short)
        else:
            self._long()
        if self._leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        cycle: Any = self.cycle
        if type(cycle) is Short:
            cycle.body = cycle.body + body if cycle.body else body
        elif cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = False
        self._since = time.monotonic()
        cycle: Any = self.cycle
        if type(cycle) is not Short:
            if cycle is not None:
                super().on_message_complete()
        elif not cycle.response_complete:
            cycle.more_body = False
            self._go(cycle)

    def _long(self) -> None:
        """What uvicorn itself does when the headers are there."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.headers.extend(headers)
        self.url, self.expect_100_continue = url, expects
        super().on_headers_complete()

    # -- the short way ---------------------------------------------------------------------------------------

    def _short(self) -> Short | None:
        """This request as a short one, if there is nothing special about it."""
        route = self.front.addresses.get(self.url)
        if route is None or self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return None
        if (
            self.cycle is not None and not self.cycle.response_complete
        ) or not self.parser.should_keep_alive():
            return None
        authorization = length = b""
        call_id, word = "", b""
        for name, value in self.headers:
            if name == b"authorization":
                authorization = value
            elif name == b"content-length":
                length = value
            elif name == b"content-type":
                if value[:16] != _JSON:
                    return None
            elif name in _ODD:
                return None
            elif name == STICKY:
                word = value
            elif name == b"x-request-id" and REQUEST_ID.match(value):
                call_id = value.decode()
        if not length.isdigit() or not 0 < int(length) <= min(SHORT_BODY, self.gateway.config.max_body_bytes):
            return None
        try:
            token = admission.token_of(authorization, self.gateway.follower.current)
        except Problem:
            return None
        if token is None or token.per_day or token.networks or not (route.public or token.may_call(route)):
            return None
        short = Short(self, route, token, call_id or self.gateway.fresh_id())
        short.word = word or short.id
        return short

    def _go(self, short: Short) -> None:
        """Admit it and hand it to a worker; whatever stands in the way is the business of the long way."""
        gateway, route = self.gateway, short.route
        leg = route if route.canary is None else gateway.asking.leg(route, short.word)
        worker = gateway.workers.pick(leg.workers)
        if (
            worker is None
            or worker.in_flight >= gateway.config.max_in_flight
            or admission.is_full(route, gateway.pulse)
        ):
            self.hand_over(short)
            return
        most = admission.rate_of(route, short.token)
        verdict = gateway.limits.take(short.token.id, route.id, most)
        if verdict is None or not verdict.passed:
            self.hand_over(short)
            return
        short.standing = limits.headers(most, verdict)
        short.leg, short.began = leg, time.monotonic()
        within_s = route.deadline_s or gateway.config.deadline_s
        short.until = short.began + within_s
        try:
            payload = frames.envelope(b"J", short.body, within_ms=int(within_s * 1000))
            short.number = worker.send(payload, short.answered)
        except WorkerLost:
            self.hand_over(short)
            return
        short.worker = worker
        self.front.inside.add(short)
        gateway.pulse.enter(route.id)
        if route.shadow is not None:
            gateway.shadows.ask(route, payload, short.word)

    def hand_over(self, short: Short, *, lost: bool = False) -> None:
        """Go the long way with what was read. `lost`: a worker died over it already."""
        short.end()
        if self.transport.is_closing():
            return
        cycle = self._cycle_of(short)
        cast("dict[str, Any]", cycle.scope)[LOST] = lost
        if cast("Any", self.cycle) is short:
            self.cycle = cycle
            self._start_asgi_task(cycle, self.app)
        else:  # another request came behind it and waits in the pipeline
            self.pipeline.append((cycle, self.app))
            self.on_response_complete()

    def _cycle_of(self, short: Short) -> RequestResponseCycle:
        """The short request as one of uvicorn's own kind, its body already there."""
        next_one = self.url, self.headers, self.expect_100_continue, self.scope
        super().on_message_begin()
        scope, headers = self.scope, self.headers
        self.url, self.headers, self.expect_100_continue, self.scope = next_one
        headers.extend(short.headers)
        scope["method"] = "POST"
        scope["path"] = short.url.decode()
        scope["raw_path"] = short.url
        scope["query_string"] = b""
        cycle = RequestResponseCycle(
            scope=scope, transport=self.transport, flow=self.flow, logger=self.logger,
            access_logger=self.access_logger, access_log=self.access_log,
            default_headers=self.server_state.default_headers, message_event=asyncio.Event(),
            expect_100_continue=False, keep_alive=short.keep_alive, on_response=self.on_response_complete,
        )  # fmt: skip
        cycle.body = bytearray(short.body)
        cycle.more_body = False
        cycle.message_event.set()
        return cycle

    # -- answering -------------------------------------------------------------------------------------------

    def answer(self, short: Short, answer: Answer) -> None:
        if short.response_complete:
            return
        if answer.status == 206:  # binary tensors were asked for; they follow the JSON
            size = int.from_bytes(answer.body[:4], "big")
            headers: Headers = [*short.standing, (b"inference-header-content-length", b"%d" % size)]
            self._write(short, b"200 OK", b"application/octet-stream", answer.body[4:], headers)
        else:
            self._write(short, b"200 OK", _JSON, answer.body, short.standing)
        if short.route.log_share and self.gateway.recorder.wants(short.route):
            self._record(short, 200, answer.body, rows=answer.rows, binary=answer.status == 206)

    def refuse(self, short: Short, problem: Problem) -> None:
        if not short.response_complete:
            body = problem.body(path=short.url.decode(), request_id=short.id)
            status = STATUS_LINE[problem.status][9:-2]
            self._write(short, status, b"application/problem+json", body, problem.headers)
            if short.route.log_share and self.gateway.recorder.wants(short.route):
                self._record(short, problem.status, body)

    def _record(self, short: Short, status: int, said: bytes, *, rows: int = 0, binary: bool = False) -> None:
        us = int((time.monotonic() - short.began) * 1e6)
        self.gateway.recorder.record(
            short.leg, short.token, short.id, body=short.body, said=said, status=status, rows=rows, us=us,
            letter="J", binary=binary,
        )  # fmt: skip

    def _write(self, short: Short, status: bytes, kind: bytes, body: bytes, headers: Headers) -> None:
        short.end()
        if self.transport.is_closing():
            return
        self.transport.write(
            b"HTTP/1.1 %b\r\n%bcontent-type: %b\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
            b"x-request-id: %b\r\nx-content-type-options: nosniff\r\n%b%b\r\n%b"
            % (
                status,
                self.front.usual_head(self.server_state.default_headers),
                kind,
                len(body),
                short.id.encode(),
                b"".join([b"%b: %b\r\n" % header for header in headers]),
                b"" if short.keep_alive else b"connection: close\r\n",
                body,
            )
        )
        if not short.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """As uvicorn does it, but for the timer: `look` closes what nobody uses."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = time.monotonic()
        if self.pipeline:
            self.flow.resume_reading()
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.flow.read_paused:
            self.flow.resume_reading()

    # -- patience --------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The gateway is being stopped: answer what is here or on its way, then close."""
        self._leaving = True
        self._since = time.monotonic()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def look(self, now: float, *, header_s: float, body_s: float, idle_s: float) -> None:
        """Cut off who is too slow, close what nobody uses. Called a few times a second."""
        took_s = now - self._since
        if self._reading:
            if self._in_headers and took_s > header_s:
                self._cut_off(408, "headers_too_slow", f"The headers did not arrive within {header_s:g} s.")
            elif took_s > body_s + 1:  # the long way has said so itself by then
                self._cut_off(408, "body_too_slow", f"The body did not arrive within {body_s:g} s.")
        elif (self.cycle is None or self.cycle.response_complete) and took_s > (
            LINGER_S if self._leaving else idle_s
        ):
            self.transport.close()

    def _cut_off(self, status: int, code: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        body = Problem(status, code, detail).body(path="", request_id=self.gateway.fresh_id())
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            % len(body)
            + body
        )
        self.transport.close()
