"""How endpoints do, second by second: counted in memory, told to the keeper of replicas through Redis.

Counters only grow, so a second that was not told is contained in the next one. Bills do not come from here but
from the write-ahead log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from bisect import bisect_left
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

PULSES_KEY = "tauon:pulses"  # the set of gateways, by boot
PULSE_KEY = "tauon:pulse:"  # + boot: its counters as JSON
WAKE_KEY = "tauon:wake"  # the set of endpoints a request is waiting for
KEEPER_CHANNEL = "tauon:replicas"  # anything said here makes the keeper look at once
TOLD_EVERY_S = 1.0
KEPT_S = 15  # a gateway that says nothing for so long is gone
# upper ends of the latency classes in ms; one more class takes the rest
BOUNDS_MS = (
    0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 400, 500,
    700, 1000, 1500, 2000, 3000, 5000, 10000, 30000,
)  # fmt: skip
_BOUNDS_US = tuple(int(one * 1000) for one in BOUNDS_MS)


class Tally:
    """The counters of one revision of one endpoint since this gateway started."""

    __slots__ = ("errors", "latency", "refused", "requests", "rows", "us")

    def __init__(self) -> None:
        self.requests = self.errors = self.refused = self.rows = self.us = 0
        self.latency = [0] * (len(BOUNDS_MS) + 1)

    def answered(self, status: int, rows: int, us: int) -> None:
        """One request was answered. Only 5xx count as errors: a bad request is not the model's fault."""
        self.requests += 1
        self.rows += rows
        self.us += us
        self.latency[bisect_left(_BOUNDS_US, us)] += 1
        if status >= 500:
            self.errors += 1


class Pulse:
    """All counters of one gateway, and the voice that tells them."""

    def __init__(self, redis_url: str, boot: str) -> None:
        self._key = PULSE_KEY + boot
        self._boot = boot
        self._began = time.time()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._shadows: dict[tuple[str, str], Tally] = {}
        self.inside: dict[str, int] = {}  # requests admitted and not yet answered, by endpoint
        self.parked: dict[str, int] = {}  # of these, those no worker has taken
        self._woken: dict[str, float] = {}
        self._redis = Redis.from_url(redis_url, socket_timeout=5, socket_connect_timeout=2)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._keep(self._tell_on())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tell()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def of(self, endpoint_id: str, revision: str) -> Tally:
        key = (endpoint_id, revision)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        return tally

    def of_shadow(self, endpoint_id: str, revision: str) -> Tally:
        return self._shadows.setdefault((endpoint_id, revision), Tally())

    def enter(self, endpoint_id: str) -> None:
        self.inside[endpoint_id] = self.inside.get(endpoint_id, 0) + 1

    def leave(self, endpoint_id: str) -> None:
        self.inside[endpoint_id] -= 1

    def park(self, endpoint_id: str) -> None:
        self.parked[endpoint_id] = self.parked.get(endpoint_id, 0) + 1

    def unpark(self, endpoint_id: str) -> None:
        self.parked[endpoint_id] -= 1

    def wake(self, endpoint_id: str) -> None:
        """Ask the keeper for a worker: once a second while requests wait, for a message may be lost."""
        now = time.monotonic()
        if now - self._woken.get(endpoint_id, float("-inf")) < 1.0:
            return
        self._woken[endpoint_id] = now
        self._keep(self._wake(endpoint_id))

    def counters(self) -> dict[str, Any]:
        """Everything, as the keeper reads it."""
        return {
            "began": self._began,
            "at": time.time(),
            "tallies": [
                [
                    endpoint,
                    revision,
                    shadow,
                    one.requests,
                    one.errors,
                    one.refused,
                    one.rows,
                    one.us,
                    one.latency,
                ]
                for shadow, kind in ((0, self._tallies), (1, self._shadows))
                for (endpoint, revision), one in kind.items()
            ],
            "inside": {key: count for key, count in self.inside.items() if count},
            "parked": {key: count for key, count in self.parked.items() if count},
        }

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            await self._tell()

    async def _tell(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.set(self._key, json.dumps(self.counters()), ex=KEPT_S)
                pipe.sadd(PULSES_KEY, self._boot)
                await pipe.execute()

    async def _wake(self, endpoint_id: str) -> None:
        with contextlib.suppress(RedisError, OSError):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.sadd(WAKE_KEY, endpoint_id)
                pipe.publish(KEEPER_CHANNEL, "wake")
                await pipe.execute()
