"""The ASGI app: admit, send to a worker, write the usage line, answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from jobs.gateway import limits, problems, traffic
from jobs.gateway.call import Call, Disconnected, Receive, Send
from jobs.gateway.config import Config
from jobs.gateway.frames import Answer, WorkerLost
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.pulse import Pulse
from jobs.gateway.shadows import Shadows
from jobs.gateway.snapshot import Follower, Route, Snapshot, Token
from jobs.gateway.usage import UsageLog
from jobs.gateway.workers import Workers

log = logging.getLogger("tauon.gateway")

PLATFORM = "onnxruntime_onnx"
SERVER = json.dumps({"name": "tauon", "version": "1", "extensions": []}).encode()


class Gateway:
    """Everything one gateway process holds. Nothing is opened before the server starts it."""

    def __init__(self, config: Config | None = None) -> None:
        self._config = config
        self._count = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.config = self._config or Config.from_environment()
        self.workers = Workers()
        self.buckets = limits.Buckets()
        self.usage = UsageLog(self.config.usage_dir, segment_bytes=self.config.segment_bytes)
        self.follower = Follower(self.config, self._on_snapshot)
        await self.follower.start()
        self.pulse = Pulse(self.config.redis_url, self.usage.boot)
        self.pulse.start()
        self.shadows = Shadows(self.workers, self.pulse, deadline_s=self.config.deadline_s)

    async def stop(self) -> None:
        await self.follower.close()
        self.shadows.close()
        await self.workers.close()
        await self.pulse.close()
        self.usage.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except SystemExit as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        self.workers.follow(
            address
            for main in snapshot.routes.values()
            for route in (main, main.canary, main.shadow)
            if route is not None
            for address in route.workers
        )

    # -- requests --------------------------------------------------------------------------------------------

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self._count += 1
        call = Call(scope, receive, send, f"req_{self.usage.boot}{self._count:08x}")
        try:
            await self._answer(call)
        except Problem as problem:
            await call.refuse(problem)
        except Disconnected:
            return
        except Exception:
            log.exception("request %s failed", call.id)
            await call.refuse(Problem(500, "internal_error", "Something broke here. It was written down."))

    async def _answer(self, call: Call) -> None:
        parts = call.path.split("/")[1:]
        if parts[0] != "t" or len(parts) < 4:
            await self._house(call)
            return
        route, token = self._admit(call, f"{parts[1]}/{parts[2]}")
        match parts[3:]:
            case ["v2"] | ["v2", ""]:
                self._only_get(call)
                await call.answer(200, SERVER)
            case ["v2", "health", "live"]:
                self._only_get(call)
                await call.answer(200, b'{"live":true}')
            case ["v2", "health", "ready"]:
                await self._ready(call, route, b'{"ready":true}')
            case ["v2", "models", name, *rest]:
                await self._model(call, route, token, name, rest)
            case _:
                raise problems.not_found(f"This endpoint speaks /v2/models/{route.slug}/infer and its kin.")

    async def _house(self, call: Call) -> None:
        """The gateway's own health; everything else lies under /t/<tenant>/<endpoint>."""
        if call.path not in ("/v2/health/live", "/v2/health/ready"):
            raise problems.not_found("Endpoints are at /t/<tenant>/<endpoint>/v2/models/<endpoint>/infer.")
        self._only_get(call)
        if call.path.endswith("ready") and self.follower.current.version == 0:
            raise problems.unavailable("starting", "The gateway has no routes yet.")
        await call.answer(200, b'{"live":true}' if call.path.endswith("live") else b'{"ready":true}')

    async def _model(self, call: Call, route: Route, token: Token | None, name: str, rest: list[str]) -> None:
        if name != route.slug:
            raise problems.not_found(f"The model behind this endpoint is called {route.slug}.")
        if rest[:1] == ["versions"]:
            if len(rest) > 1 and route.canary is not None and rest[1] == route.canary.model_version:
                route = route.canary
            elif len(rest) < 2 or rest[1] != route.model_version:
                raise problems.not_found(f"This endpoint answers with version {route.model_version} now.")
            rest = rest[2:]
        match rest:
            case []:
                self._only_get(call)
                await call.answer(200, _metadata(route))
            case ["ready"]:
                body = json.dumps({"name": route.slug, "ready": True}).encode()
                await self._ready(call, route, body)
            case ["infer"]:
                await self._infer(call, route, token)
            case _:
                raise problems.not_found()

    async def _ready(self, call: Call, route: Route, body: bytes) -> None:
        self._only_get(call)
        if self.workers.pick(route.workers) is None:
            if route.sleeps:  # whoever asks before it calls must be able to wake it, too
                self.pulse.wake(route.id)
            raise self._no_worker(route)
        await call.answer(200, body)

    async def _infer(self, call: Call, route: Route, token: Token | None) -> None:
        if call.method != "POST":
            raise problems.wrong_method("POST")
        began = time.monotonic()
        standing = self._within_rate(call, route, token)
        call.require_json()
        payload = await call.body(self.config.max_body_bytes, self.config.deadline_s)
        leg = self._leg(route, call.word)
        self.pulse.enter(route.id)
        try:
            async with asyncio.timeout(self.config.deadline_s):
                key = f"{call.path.split('/')[2]}/{route.slug}"
                leg, answer = await self._ask(leg, key, payload, call.word)
        except TimeoutError:
            self.pulse.of(leg.id, leg.model_version).answered(504, 0, _us_since(began))
            raise Problem(
                504,
                "deadline",
                f"No answer within {self.config.deadline_s:g} s. Send fewer rows, or try again.",
                headers=standing,
            ) from None
        except Problem:
            self.pulse.of(leg.id, leg.model_version).refused += 1
            raise
        finally:
            self.pulse.leave(route.id)
        us = _us_since(began)
        self.pulse.of(leg.id, leg.model_version).answered(answer.status, answer.rows, us)
        if answer.status != 200:
            raise _refusal(answer, standing)
        self._write_down(call, leg, token, answer.rows, us)
        await call.answer(200, answer.body, standing)
        if route.shadow is not None:
            self.shadows.ask(route, payload, call.word)

    # -- the steps -------------------------------------------------------------------------------------------

    def _admit(self, call: Call, key: str) -> tuple[Route, Token | None]:
        """401 without a known token, 404 to strangers, 403 to colleagues without the right."""
        snapshot = self.follower.current
        if snapshot.version == 0:
            raise problems.unavailable("starting", "The gateway has no routes yet. Try again in a moment.")
        route = snapshot.routes.get(key)
        token = self._token(call.authorization, snapshot)
        if token is None:
            if route is not None and route.public:
                return route, None
            raise problems.not_signed_in("Send a token: Authorization: Bearer tau_...")
        if route is None:
            raise problems.not_found()
        if not route.public and not token.may_call(route):
            raise problems.forbidden() if token.tenant_id == route.tenant_id else problems.not_found()
        return route, token

    @staticmethod
    def _token(header: bytes, snapshot: Snapshot) -> Token | None:
        """The caller's token; None without one. An unknown token is refused, also at a public door."""
        if not header:
            return None
        scheme, _, value = header.partition(b" ")
        value = value.strip()
        if scheme.lower() != b"bearer" or not value:
            raise problems.not_signed_in("Only Authorization: Bearer is taken here.")
        token = snapshot.tokens.get(hashlib.sha256(value).hexdigest())
        if token is None or (token.expires is not None and token.expires <= time.time()):
            raise problems.not_signed_in(
                "This token is not known, expired or was revoked.", error="invalid_token"
            )
        return token

    def _within_rate(self, call: Call, route: Route, token: Token | None) -> Headers:
        who = token.id if token is not None else call.caller
        verdict = self.buckets.take((who, route.id), route.requests_per_minute, time.monotonic())
        standing = limits.headers(route.requests_per_minute, verdict)
        if not verdict.passed:
            self.pulse.of(route.id, route.model_version).refused += 1
            raise Problem(
                429,
                "too_many_requests",
                f"This endpoint takes {route.requests_per_minute} requests a minute from one caller. "
                f"Try again in {verdict.retry_after_s} s.",
                headers=[*standing, (b"retry-after", str(verdict.retry_after_s).encode())],
            )
        return standing

    def _leg(self, route: Route, word: str | bytes) -> Route:
        """The revision this request belongs to. A canary without a worker sends nobody away."""
        canary = route.canary
        if (
            canary is not None
            and traffic.falls_into(route.canary_share, route.id, word)
            and self.workers.pick(canary.workers) is not None
        ):
            return canary
        return route

    async def _ask(self, route: Route, key: str, payload: bytes, word: str | bytes) -> tuple[Route, Answer]:
        """Ask the least busy worker; if it dies meanwhile ask another, once: inference changes nothing.

        Where a worker is expected any moment (one is being replaced or woken, or its socket is not connected
        yet) the request waits instead of failing. Returns the route that answered, which may be a newer one.
        """
        lost = refused = 0
        began = time.monotonic()
        until = began + (self.config.deadline_s if route.sleeps else self.config.hold_s)
        while True:
            worker = self.workers.pick(route.workers)
            if worker is None:
                await self._wait_for_worker(route, until)
                route = self._leg(self.follower.current.routes.get(key, route), word)
                continue
            if worker.in_flight >= self.config.max_in_flight:
                raise problems.unavailable(
                    "queue_full", "Too many requests wait for this endpoint. Try again."
                )
            try:
                answer = await worker.ask(payload)
            except WorkerLost:
                log.warning("a worker of %s was lost with a request in flight", route.id)
                # it counts against the revision that died, whoever answers in the end
                self.pulse.of(route.id, route.model_version).answered(500, 0, _us_since(began))
                lost += 1
                if lost > 1:
                    raise self._no_worker(route) from None
                route = self.follower.current.routes.get(key, route)  # the stable one, should it be a canary
            else:
                worker.stopping = answer.status == 503 and b"stopping" in answer.body
                refused += 1
                if not worker.stopping or refused > 3:
                    return route, answer
            self.follower.refresh_soon()
            until = max(until, time.monotonic() + self.config.failover_s)

    async def _wait_for_worker(self, route: Route, until: float) -> None:
        """Wait for news; refuse when there is nothing to wait for, no time left, or too many wait already."""
        left_s = until - time.monotonic()
        expected = route.workers or route.status in ("live", "starting", "asleep")
        full = self.pulse.parked.get(route.id, 0) >= self.config.max_in_flight
        if not expected or left_s <= 0 or full:
            raise self._no_worker(route)
        if route.sleeps:
            self.pulse.wake(route.id)
        self.pulse.park(route.id)
        try:
            # woken again every second: the first word may have been lost
            await self.workers.news(min(left_s, 1.0) if route.sleeps else left_s)
        finally:
            self.pulse.unpark(route.id)

    def _no_worker(self, route: Route) -> Problem:
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
                "warming",
                "This endpoint was asleep and is being woken. Try again in a moment.",
                retry_after_s=1,
            )
        return problems.unavailable(
            "not_ready",
            "No worker of this endpoint is ready right now. Try again in a moment.",
            retry_after_s=2,
        )

    def _write_down(self, call: Call, route: Route, token: Token | None, rows: int, us: int) -> None:
        """The usage line, before the answer leaves: kill -9 at any moment loses no answered request."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        who = token.id if token is not None else ""
        # every value is of our own making and of plain letters: no escaping is needed, and none is paid for
        line = (
            f'{{"id":"{call.id}","at":"{at}","tenant":"{route.tenant_id}","endpoint":"{route.id}",'
            f'"version":"{route.model_version}","token":"{who}","rows":{rows},"us":{us},"status":200}}\n'
        )
        try:
            self.usage.append(line.encode())
        except OSError as error:
            log.error("usage cannot be written down: %s", error)
            raise problems.unavailable(
                "cannot_count", "Usage cannot be written down here (is the disk full?). Nothing was charged."
            ) from error

    @staticmethod
    def _only_get(call: Call) -> None:
        if call.method not in ("GET", "HEAD"):
            raise problems.wrong_method("GET, HEAD")


def _us_since(began: float) -> int:
    return int((time.monotonic() - began) * 1e6)


def _metadata(route: Route) -> bytes:
    return json.dumps(
        {
            "name": route.slug,
            "versions": [route.model_version],
            "platform": PLATFORM,
            "inputs": route.inputs,
            "outputs": route.outputs,
        },
        ensure_ascii=False,
    ).encode()


def _refusal(answer: Answer, standing: Headers) -> Problem:
    """The worker's refusal in our words and shape."""
    try:
        said = json.loads(answer.body)
        detail, pointer = str(said["error"]), said.get("pointer")
    except (ValueError, KeyError, TypeError):
        detail, pointer = "The model worker gave an answer that cannot be read.", None
    code = {400: "not_a_request", 422: "invalid", 503: "busy"}.get(answer.status, "model_failed")
    status = answer.status if answer.status in (400, 422, 503) else 500
    extra = [(b"retry-after", b"1")] if status == 503 else []
    return Problem(status, code, detail, pointer=pointer, headers=[*standing, *extra])
