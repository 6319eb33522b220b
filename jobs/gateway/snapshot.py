"""The routing snapshot: who may call what, and where it is answered. Loaded whole, swapped in one step."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.gateway.config import ROUTES_CHANNEL, ROUTES_KEY, VERSION_KEY, Config

log = logging.getLogger("tauon.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint as the gateway knows it."""

    id: str
    tenant_id: str
    slug: str
    name: str
    status: str
    model_version: str
    public: bool
    requests_per_minute: int
    workers: tuple[str, ...]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    classes: list[str] = field(default_factory=list)
    recipe: str = ""
    deadline_s: float | None = None  # None: the gateway's own
    most_at_once: int | None = None  # requests inside at the same time, in one gateway
    # other revisions of the same endpoint, each a route of its own; shares are basis points of the requests
    canary: Route | None = None
    canary_share: int = 0
    shadow: Route | None = None
    shadow_share: int = 0
    log_share: int = 0  # of the requests are written to the request log, in basis points; 0: off
    log_rules: bytes = b""  # what is masked in it, for the scribe
    sleeps: bool = False  # without a worker a request waits for one to be woken, up to its deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One bearer token, by what it may call."""

    id: str
    tenant_id: str
    expires: float | None
    whole_tenant: bool  # every endpoint of its tenant
    granted: frozenset[str]  # and these besides, wherever they are
    per_minute: int | None = None  # its own rate, instead of the endpoint's
    per_day: int | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()  # empty: it may call from anywhere

    def may_call(self, route: Route) -> bool:
        return (self.whole_tenant and self.tenant_id == route.tenant_id) or route.id in self.granted

    def may_come_from(self, address: str) -> bool:
        """Whether its list of addresses, if it has one, names the caller's."""
        if not self.networks:
            return True
        try:
            caller = ip_address(address)
        except ValueError:
            return False
        if isinstance(caller, IPv6Address) and caller.ipv4_mapped is not None:
            caller = caller.ipv4_mapped
        return any(caller in network for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    version: int = 0  # 0: none was loaded yet
    routes: dict[str, Route] = field(default_factory=dict)  # by "<tenant slug>/<slug>"
    tokens: dict[str, Token] = field(default_factory=dict)  # by SHA-256

    @classmethod
    def from_json(cls, text: str | bytes) -> Snapshot:
        raw = json.loads(text)
        routes = {key: _route(key, one) for key, one in raw["endpoints"].items()}
        tokens = {
            digest: Token(
                id=one["id"],
                tenant_id=one["tenant_id"],
                expires=one["expires"],
                whole_tenant=one["whole_tenant"],
                granted=frozenset(one["granted"]),
                per_minute=one.get("per_minute"),
                per_day=one.get("per_day"),
                networks=tuple(ip_network(network) for network in one.get("networks", ())),
            )
            for digest, one in raw["tokens"].items()
        }
        return cls(version=raw["version"], routes=routes, tokens=tokens)


def _route(key: str, one: dict[str, Any]) -> Route:
    main = Route(
        id=one["id"],
        tenant_id=one["tenant_id"],
        slug=key.split("/", 1)[1],
        name=one["name"],
        status=one["status"],
        model_version=one["model_version"],
        public=one["public"],
        requests_per_minute=one["rpm"],
        workers=tuple(one["workers"]),
        inputs=one["interface"].get("inputs", []),
        outputs=one["interface"].get("outputs", []),
        classes=one["interface"].get("classes", []),
        recipe=one["interface"].get("recipe", ""),
        deadline_s=one["deadline_ms"] / 1000 if one.get("deadline_ms") else None,
        most_at_once=one.get("most_at_once"),
        sleeps=one.get("sleeps", False),
        **_log(one.get("log"), one["interface"]),
    )
    canary, shadow = one.get("canary"), one.get("shadow")
    return replace(
        main,
        canary=_beside(main, canary, one.get("log")) if canary else None,
        canary_share=canary["share"] if canary else 0,
        shadow=_beside(main, shadow, None) if shadow else None,
        shadow_share=shadow["share"] if shadow else 0,
    )


def _beside(main: Route, leg: dict[str, Any], log: dict[str, Any] | None) -> Route:
    """The same endpoint as another revision answers it."""
    return replace(
        main,
        model_version=leg["revision"],
        workers=tuple(leg["workers"]),
        inputs=leg["interface"].get("inputs", []),
        outputs=leg["interface"].get("outputs", []),
        classes=leg["interface"].get("classes", []),
        **_log(log, leg["interface"]),
    )


def _log(log: dict[str, Any] | None, interface: dict[str, Any]) -> dict[str, Any]:
    """How much of an endpoint's requests is logged, and what the scribe must know to mask it."""
    if not log:
        return {"log_share": 0, "log_rules": b""}
    rules = {"names": log["masks"], "texts": log["texts"], "inputs": interface.get("inputs", [])}
    return {"log_share": int(log["share"]), "log_rules": json.dumps(rules).encode()}


class Follower:
    """Keeps the snapshot fresh: at once on a message, every two seconds without one.

    While Redis is away, or its keys are gone, the last snapshot goes on being served.
    """

    def __init__(self, config: Config, on_change: Callable[[Snapshot], None]) -> None:
        self.current = Snapshot()
        self._config = config
        self._on_change = on_change
        self._wake = asyncio.Event()
        # a half-open connection must not hold the routes back for longer than a poll
        self._redis = Redis.from_url(config.redis_url, socket_timeout=5, socket_connect_timeout=2)
        self._tasks: list[asyncio.Task[None]] = []
        self._away = False

    async def start(self) -> None:
        await self._refresh()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._poll()), loop.create_task(self._listen())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def refresh_soon(self) -> None:
        self._wake.set()

    async def _poll(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._wake.wait()
            self._wake.clear()
            await self._refresh()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(ROUTES_CHANNEL)
                    self._wake.set()  # whatever was said before we listened
                    while True:
                        if await channel.get_message(timeout=1.0) is not None:
                            self._wake.set()
            except (RedisError, OSError):
                await asyncio.sleep(0.5)

    async def _refresh(self) -> None:
        try:
            version = await self._redis.get(VERSION_KEY)
            if version is None or int(version) == self.current.version:
                self._say_away(None)
                return
            text = await self._redis.get(ROUTES_KEY)
            if text is None:
                return
            snapshot = Snapshot.from_json(text)
        except (RedisError, OSError) as error:
            self._say_away(error)
            return
        except (ValueError, KeyError, TypeError, IndexError):
            log.exception("the routing snapshot cannot be read; the last one stays")
            return
        self._say_away(None)
        self.current = snapshot
        self._on_change(snapshot)

    def _say_away(self, error: Exception | None) -> None:
        """Once when it goes, once when it is back."""
        if error is not None and not self._away:
            log.warning("Redis does not answer (%s); the last routes stay in force", error)
        elif error is None and self._away:
            log.warning("Redis answers again")
        self._away = error is not None
