"""Finds a worker for one request and hears its answer, whatever becomes of the worker meanwhile."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.gateway import frames, problems, traffic
from jobs.gateway.config import Config
from jobs.gateway.frames import Answer, WorkerLost
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.pulse import Pulse
from jobs.gateway.snapshot import Follower, Route
from jobs.gateway.workers import Workers

log = logging.getLogger("tauon.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a worker is to be asked, and by when it must have begun."""

    key: str  # of the route
    word: str | bytes  # decides between revisions
    letter: bytes
    body: bytes
    head: bytes = b""
    until: float  # monotonic
    lost: bool = (
        False  # a worker died over it already: it is tried once more, and another worker is waited for
    )
    on_piece: Callable[[bytes], None] | None = None  # of a stream; once one was sent, nothing is tried again
    pieces: list[int] = field(default_factory=lambda: [0])  # how many there were so far

    def hear(self, piece: bytes) -> None:
        self.pieces[0] += 1
        if self.on_piece is not None:
            self.on_piece(piece)

    def payload(self) -> bytes:
        within_ms = max(1, int((self.until - time.monotonic()) * 1000))
        return frames.envelope(self.letter, self.body, head=self.head, within_ms=within_ms)


class Asking:
    """The way from a route to an answer, retries and waiting included."""

    def __init__(self, config: Config, workers: Workers, pulse: Pulse, follower: Follower) -> None:
        self._config, self._workers, self._pulse, self._follower = config, workers, pulse, follower

    def leg(self, route: Route, word: str | bytes) -> Route:
        """The revision this request belongs to. A canary without a worker sends nobody away."""
        canary = route.canary
        if (
            canary is not None
            and traffic.falls_into(route.canary_share, route.id, word)
            and self._workers.pick(canary.workers) is not None
        ):
            return canary
        return route

    async def ask(self, route: Route, question: Question) -> tuple[Route, Answer]:
        """Ask the least busy worker; if it dies meanwhile ask another, once: inference changes nothing.

        Where a worker is expected any moment (one is being replaced or woken, or its socket is not connected
        yet) the request waits instead of failing. Returns the route that answered, which may be a newer one.
        """
        lost, refused = int(question.lost), 0
        began = time.monotonic()
        patience_s = self._config.failover_s if question.lost else self._config.hold_s
        until = question.until if route.sleeps else began + patience_s
        while True:
            worker = self._workers.pick(route.workers)
            if worker is None:
                await self._wait_for_worker(route, until)
                route = self.leg(self._follower.current.routes.get(question.key, route), question.word)
                continue
            if worker.in_flight >= self._config.max_in_flight:
                raise problems.unavailable(
                    "queue_full", "Too many requests wait for this endpoint. Try again."
                )
            try:
                answer = await worker.ask(question.payload(), question.hear)
            except WorkerLost:
                log.warning("a worker of %s was lost with a request in flight", route.id)
                # it counts against the revision that died, whoever answers in the end
                self._pulse.of(route.id, route.model_version).answered(500, 0, us_since(began))
                lost += 1
                if lost > 1 or question.pieces[0]:
                    raise no_worker(route) from None
                # the stable one, should it be a canary
                route = self._follower.current.routes.get(question.key, route)
            else:
                worker.stopping = answer.status == 503 and b"stopping" in answer.body
                refused += 1
                if not worker.stopping or refused > 3:
                    return route, answer
            self._follower.refresh_soon()
            until = max(until, time.monotonic() + self._config.failover_s)

    async def _wait_for_worker(self, route: Route, until: float) -> None:
        """Wait for news; refuse when there is nothing to wait for, no time left, or too many wait already."""
        left_s = until - time.monotonic()
        expected = route.workers or route.status in ("live", "starting", "asleep")
        full = self._pulse.parked.get(route.id, 0) >= self._config.max_in_flight
        if not expected or left_s <= 0 or full:
            raise no_worker(route)
        if route.sleeps:
            self._pulse.wake(route.id)
        self._pulse.park(route.id)
        try:
            # woken again every second: the first word may have been lost
            await self._workers.news(min(left_s, 1.0) if route.sleeps else left_s)
        finally:
            self._pulse.unpark(route.id)


def us_since(began: float) -> int:
    return int((time.monotonic() - began) * 1e6)


def no_worker(route: Route) -> Problem:
    """Why nobody answers, and when to come back."""
    if route.status == "stopped":
        return problems.unavailable(
            "stopped", "This endpoint is stopped. Its owner can start it again.", retry_after_s=60
        )
    if route.status == "failed":
        return problems.unavailable(
            "not_ready", "The model of this endpoint does not start. Its page says why.", retry_after_s=30
        )
    if route.sleeps:
        return problems.unavailable(
            "warming", "This endpoint was asleep and is being woken. Try again in a moment.", retry_after_s=1
        )
    return problems.unavailable(
        "not_ready", "No worker of this endpoint is ready right now. Try again in a moment.", retry_after_s=2
    )


def too_late(within_s: float, standing: Headers) -> Problem:
    return Problem(
        504,
        "deadline",
        f"No answer within {within_s:g} s. Send fewer rows, or try again.",
        headers=standing,
    )


def refusal(answer: Answer, standing: Headers) -> Problem:
    """The worker's refusal in our words and shape."""
    try:
        said = json.loads(answer.body)
        detail, pointer = str(said["error"]), said.get("pointer")
        wait_s = int(said.get("retry_after_s", 1))
    except (ValueError, KeyError, TypeError):
        detail, pointer, wait_s = "The model worker gave an answer that cannot be read.", None, 1
    codes = {400: "not_a_request", 422: "invalid", 503: "busy", 504: "deadline"}
    status = answer.status if answer.status in codes else 500
    extra = [(b"retry-after", b"%d" % wait_s)] if status == 503 else []
    code = codes.get(status, "model_failed")
    return Problem(status, code, detail, pointer=pointer, headers=[*standing, *extra])
