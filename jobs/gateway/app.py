"""The ASGI app: admit, send to a worker, write the usage line, answer."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from jobs.gateway import admission, asking, describe, openai, problems, usage
from jobs.gateway.admission import Admission
from jobs.gateway.asking import Asking, Question
from jobs.gateway.call import LOST, Call, Disconnected, Receive, Send
from jobs.gateway.config import Config
from jobs.gateway.frames import Answer
from jobs.gateway.limits import Limits
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.pulse import Pulse
from jobs.gateway.recorder import Recorder, Seen
from jobs.gateway.shadows import Shadows
from jobs.gateway.snapshot import Follower, Route, Snapshot, Token
from jobs.gateway.usage import UsageLog
from jobs.gateway.workers import Workers

log = logging.getLogger("tauon.gateway")


class Gateway:
    """Everything one gateway process holds. Nothing is opened before the server starts it."""

    def __init__(self, config: Config | None = None) -> None:
        self._config = config
        self._count = 0
        self.behind_answers: Callable[[], None] = lambda: None  # see `jobs.gateway.http`
        self.on_routes: Callable[[Snapshot], None] = lambda _: None

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
        self.workers = Workers(lambda: self.behind_answers())
        self.limits = Limits(self.config.redis_url)
        self.usage = UsageLog(self.config.usage_dir, segment_bytes=self.config.segment_bytes)
        self.recorder = Recorder(self.config.requests_dir)
        self.follower = Follower(self.config, self._on_snapshot)
        await self.follower.start()
        self.pulse = Pulse(self.config.redis_url, self.usage.boot)
        self.pulse.start()
        self.admission = Admission(self.limits, self.pulse)
        self.asking = Asking(self.config, self.workers, self.pulse, self.follower)
        self.shadows = Shadows(self.workers, self.pulse, deadline_s=self.config.deadline_s)

    async def stop(self) -> None:
        await self.follower.close()
        self.shadows.close()
        await self.workers.close()
        await self.limits.close()
        await self.pulse.close()
        await self.recorder.close()
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
        self.recorder.follow(snapshot)
        self.on_routes(snapshot)

    # -- requests --------------------------------------------------------------------------------------------

    def fresh_id(self) -> str:
        self._count += 1
        return f"req_{self.usage.boot}{self._count:08x}"

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, self.fresh_id())
        try:
            await self._answer(call)
        except Problem as problem:
            await self._refuse(call, problem)
        except Disconnected:
            return
        except Exception:
            log.exception("request %s failed", call.id)
            broken = Problem(500, "internal_error", "Something broke here. It was written down.")
            await self._refuse(call, broken)
        else:
            if call.seen is not None and (answer := call.seen.answer) is not None:
                self.recorder.saw(call.seen, call.id, 200, answer.body)

    async def _refuse(self, call: Call, problem: Problem) -> None:
        await call.refuse(problem)
        if call.seen is not None:
            said = problem.body(path=call.path, request_id=call.id)
            self.recorder.saw(call.seen, call.id, problem.status, said)

    async def _answer(self, call: Call) -> None:
        parts = call.path.split("/")[1:]
        if parts[0] != "t" or len(parts) < 4:
            await self._house(call)
            return
        key = f"{parts[1]}/{parts[2]}"
        route, token = admission.admit(self.follower.current, key, call.authorization, call.caller)
        match parts[3:]:
            case ["v2"] | ["v2", ""]:
                self._only_get(call)
                await call.answer(200, describe.SERVER)
            case ["v2", "health", "live"]:
                self._only_get(call)
                await call.answer(200, b'{"live":true}')
            case ["v2", "health", "ready"]:
                await self._ready(call, route, b'{"ready":true}')
            case ["v2", "models", name, *rest]:
                await self._model(call, route, token, name, rest)
            case ["predict"]:
                kind = call.kind(b"multipart/form-data", b"image/") if call.method == "POST" else b""
                head = call.content_type if kind.startswith(b"multipart") else kind
                await self.infer(call, route, token, letter=b"P", head=head)
            case ["v1", *rest]:
                await openai.answer(self, call, route, token, rest)
            case ["openapi.json"]:
                self._only_get(call)
                await call.answer(200, describe.openapi(route, self._base(call)))
            case _:
                raise problems.not_found(
                    f"This endpoint speaks /predict, /v2/models/{route.slug}/infer and its kin, /openapi.json."
                )

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
                await call.answer(200, describe.metadata(route))
            case ["config"]:
                self._only_get(call)
                await call.answer(200, describe.configuration(route))
            case ["ready"]:
                body = json.dumps({"name": route.slug, "ready": True}).encode()
                await self._ready(call, route, body)
            case ["infer"]:
                call.kind(b"application/octet-stream")
                letter = b"B" if call.json_bytes else b"J"
                await self.infer(call, route, token, letter=letter, head=call.json_bytes)
            case _:
                raise problems.not_found()

    async def _ready(self, call: Call, route: Route, body: bytes) -> None:
        self._only_get(call)
        if self.workers.pick(route.workers) is None:
            if route.sleeps:  # whoever asks before it calls must be able to wake it, too
                self.pulse.wake(route.id)
            raise asking.no_worker(route)
        await call.answer(200, body)

    async def infer(
        self,
        call: Call,
        route: Route,
        token: Token | None,
        *,
        letter: bytes,
        head: bytes = b"",
        stream: openai.Stream | None = None,
    ) -> None:
        """From a POST to its answer, which is counted before it leaves."""
        if call.method != "POST":
            raise problems.wrong_method("POST")
        began = time.monotonic()
        seen = None
        if self.recorder.wants(route):
            seen = call.seen = Seen(route=route, token=token, letter=letter, head=head)
        usual_s = route.deadline_s or self.config.deadline_s
        within_s = call.within_s(usual_s, max(usual_s, self.config.deadline_s))
        standing = await self.admission.within_rate(route, token, call.caller)
        body = await call.body(self.config.max_body_bytes, self.config.body_s)
        on_piece: Callable[[bytes], None] | None = stream.piece if stream else None
        if seen is not None:
            seen.body = body
            on_piece = seen.hear(on_piece) if on_piece else None
        self.admission.room(route, standing)
        question = Question(
            key=f"{call.path.split('/')[2]}/{route.slug}", word=call.word, letter=letter, body=body,
            head=head, until=time.monotonic() + within_s, lost=bool(call.scope.get(LOST)),
            on_piece=on_piece,
        )  # fmt: skip
        if stream is not None:
            stream.start(standing)
        leg = self.asking.leg(route, call.word)
        self.pulse.enter(route.id)
        try:
            leg, answer = await self._while_wanted(call, self.asking.ask(leg, question), within_s)
        except TimeoutError as error:
            self.pulse.of(leg.id, leg.model_version).answered(504, 0, asking.us_since(began))
            if stream is not None:
                await stream.broken(leg, token, error)
            raise asking.too_late(within_s, standing) from None
        except (Problem, Disconnected) as error:
            if isinstance(error, Problem):
                self.pulse.of(leg.id, leg.model_version).refused += 1
            if stream is not None:
                await stream.broken(leg, token, error)
            raise
        finally:
            self.pulse.leave(route.id)
        us = asking.us_since(began)
        if seen is not None:
            seen.route, seen.answer = leg, answer
        self.pulse.of(leg.id, leg.model_version).answered(answer.status, answer.rows, us)
        if answer.status not in (200, 206):
            raise asking.refusal(answer, standing)
        self.write_down(usage.line(call.id, leg, token, answer, us))
        if stream is not None and stream.begun:
            await stream.finish(answer.body)
        elif answer.status == 206:  # binary tensors follow the JSON
            size = int.from_bytes(answer.body[:4], "big")
            headers: Headers = [*standing, (b"inference-header-content-length", b"%d" % size)]
            await call.answer(200, answer.body[4:], headers, kind=b"application/octet-stream")
        else:
            await call.answer(200, answer.body, standing)
        if route.shadow is not None:
            self.shadows.ask(route, question.payload(), call.word)

    async def _while_wanted(
        self, call: Call, work: Coroutine[Any, Any, tuple[Route, Answer]], within_s: float
    ) -> tuple[Route, Answer]:
        """The result of the work, unless the time is over (TimeoutError) or the caller hangs up meanwhile."""
        loop = asyncio.get_running_loop()
        answering, leaving = loop.create_task(work), loop.create_task(call.gone())
        try:
            done, _ = await asyncio.wait(
                (answering, leaving), timeout=within_s, return_when=asyncio.FIRST_COMPLETED
            )
            if answering in done:
                return answering.result()
            raise Disconnected if done else TimeoutError
        finally:
            answering.cancel()  # takes the request out of the worker's queue
            leaving.cancel()

    def write_down(self, line: str) -> None:
        """The usage line, before the answer leaves: kill -9 at any moment loses no answered request."""
        try:
            self.usage.append(line.encode())
        except OSError as error:
            log.error("usage cannot be written down: %s", error)
            raise problems.cannot_count() from error

    @staticmethod
    def _base(call: Call) -> str:
        """The address of this endpoint as the caller wrote it."""
        host = next((value for name, value in call.scope["headers"] if name == b"host"), b"")
        return f"{call.scope['scheme']}://{host.decode('latin-1')}{call.path.removesuffix('/openapi.json')}"

    @staticmethod
    def _only_get(call: Call) -> None:
        if call.method not in ("GET", "HEAD"):
            raise problems.wrong_method("GET, HEAD")
