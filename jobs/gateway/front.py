"""What the connections of one gateway share: infer requests on the short way, and their answers on the way out."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.gateway import asking, problems, usage
from jobs.gateway.app import Gateway
from jobs.gateway.frames import Answer
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.snapshot import Route, Snapshot, Token
from jobs.gateway.workers import Worker

if TYPE_CHECKING:
    from jobs.gateway.http import Protocol

log = logging.getLogger("tauon.gateway")

LOOK_EVERY_S = 0.25


class Short:
    """One infer request on the short way. To uvicorn's protocol it looks like one of its own cycles."""

    __slots__ = ("began", "body", "disconnected", "headers", "id", "keep_alive", "leg", "line", "more_body",
                 "number", "protocol", "response_complete", "route", "standing", "token", "until", "url",
                 "word", "worker")  # fmt: skip

    def __init__(self, protocol: Protocol, route: Route, token: Token, call_id: str) -> None:
        self.protocol, self.route, self.leg, self.token, self.id = protocol, route, route, token, call_id
        self.url, self.headers = protocol.url, protocol.headers
        self.word: str | bytes = call_id
        self.body = b""
        self.more_body = True
        self.disconnected = self.response_complete = False
        self.keep_alive = True
        self.worker: Worker | None = None
        self.standing: Headers = []
        self.line = ""
        self.number = 0
        self.began = self.until = 0.0

    @property
    def message_event(self) -> Short:
        return self

    def set(self) -> None:
        """uvicorn rings this when the connection is lost: the request leaves the queue."""
        if self.disconnected and not self.response_complete:
            self.end()
            if self.worker is not None:
                self.worker.forget(self.number)

    def end(self) -> None:
        self.response_complete = True
        if self.worker is not None:
            self.protocol.front.inside.discard(self)
            self.protocol.gateway.pulse.leave(self.route.id)

    def answered(self, answer: Answer | None) -> None:
        """The worker has spoken, or is lost (None)."""
        try:
            self.protocol.front.take(self, answer)
        except Exception:
            log.exception("request %s failed", self.id)
            self.protocol.refuse(
                self, Problem(500, "internal_error", "Something broke here. It was written down.")
            )


class Front:
    """What all connections of one gateway share: the addresses of the short way, and the answers on their way out."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.addresses: dict[bytes, Route] = {}
        self.inside: set[Short] = set()
        self.connections: set[Protocol] = set()
        self._out: list[tuple[Short, Answer]] = []
        self._usual: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")
        gateway.behind_answers = self.send
        gateway.on_routes = self.follow
        if hasattr(gateway, "follower"):
            self.follow(gateway.follower.current)
        self._look_soon()

    def follow(self, snapshot: Snapshot) -> None:
        self.addresses = {
            f"/t/{key}/v2/models/{route.slug}/infer".encode(): route for key, route in snapshot.routes.items()
        }

    def take(self, short: Short, answer: Answer | None) -> None:
        gateway = self.gateway
        if short.response_complete:
            return
        leg = short.leg
        us = int((time.monotonic() - short.began) * 1e6)
        if answer is None or answer.status == 503:
            if answer is None:
                gateway.pulse.of(leg.id, leg.model_version).answered(500, 0, us)
                gateway.follower.refresh_soon()
            elif short.worker is not None:
                short.worker.stopping = b"stopping" in answer.body
            # the long way knows what to do about it
            short.protocol.hand_over(short, lost=answer is None)
            return
        gateway.pulse.of(leg.id, leg.model_version).answered(answer.status, answer.rows, us)
        if answer.status not in (200, 206):
            short.protocol.refuse(short, asking.refusal(answer, short.standing))
            return
        short.line = usage.line(short.id, leg, short.token, answer, us, at=_now())
        self._out.append((short, answer))

    def send(self) -> None:
        """Write down all answers of one read from a worker in one go, then send them."""
        if not self._out:
            return
        out, self._out = self._out, []
        try:
            self.gateway.usage.append("".join([short.line for short, _ in out]).encode())
        except OSError as error:
            log.error("usage cannot be written down: %s", error)
            for short, _ in out:
                short.protocol.refuse(short, problems.cannot_count())
            return
        for short, answer in out:
            short.protocol.answer(short, answer)

    def usual_head(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The headers every answer carries (`date`, `server`); uvicorn makes a new list each second."""
        if self._usual[0] is not headers:
            self._usual = (headers, b"".join([b"%b: %b\r\n" % header for header in headers]))
        return self._usual[1]

    def _look_soon(self) -> None:
        asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        """Requests past their deadline, callers that are too slow, connections nobody uses."""
        self._look_soon()
        now = time.monotonic()
        for short in [one for one in self.inside if now > one.until]:
            if short.worker is not None:
                short.worker.forget(short.number)
            leg = short.leg
            self.gateway.pulse.of(leg.id, leg.model_version).answered(504, 0, int((now - short.began) * 1e6))
            within_s = short.route.deadline_s or self.gateway.config.deadline_s
            short.protocol.refuse(short, asking.too_late(within_s, short.standing))
        config = self.gateway.config
        for connection in list(self.connections):
            connection.look(now, header_s=config.header_s, body_s=config.body_s, idle_s=config.idle_s)


_front: Front | None = None


def front_of(app: Any) -> Front:
    """The one front of this process; the app may be wrapped in uvicorn's own middleware."""
    global _front
    while not isinstance(app, Gateway):
        app = app.app
    if _front is None or _front.gateway is not app:
        _front = Front(app)
    return _front


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
