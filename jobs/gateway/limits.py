"""Rates shared by all gateways: each borrows a few requests at a time from Redis and spends them from memory.

A limit is a bucket in Redis that fills evenly over a minute, or a count that begins anew each UTC day. A gateway
takes a fiftieth of it as a lease and asks for the next before the last is spent, so that nearly no request waits
for Redis. While Redis is away each gateway keeps the limit on its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger("tauon.gateway")

MINUTE, DAY = 60, 86_400
MANY = 100_000  # more leases than this: forget those that are over
PART = 50
MOST_AT_ONCE = 5_000
KEPT_S = 10.0  # a lease nobody spends is over then
ALONE_S = 1.0  # how long Redis is left in peace after it failed

_BUCKET = """
local clock = redis.call('TIME')
local now, cap, rate = clock[1] + clock[2] / 1e6, tonumber(ARGV[1]), tonumber(ARGV[1]) / 60
local held = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = cap
if held[1] then left = math.min(cap, tonumber(held[1]) + math.max(0, now - tonumber(held[2])) * rate) end
local given = math.min(tonumber(ARGV[2]), math.floor(left))
left = left - given
redis.call('HSET', KEYS[1], 'left', tostring(left), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], 120)
return {given, math.floor(left), math.ceil((cap - left) / rate), math.ceil(math.max(0, 1 - left) / rate)}
"""
_COUNT = """
local now, cap = tonumber(redis.call('TIME')[1]), tonumber(ARGV[1])
local key = KEYS[1] .. ':' .. math.floor(now / 86400)
local left = cap - tonumber(redis.call('GET', key) or '0')
local given = math.max(0, math.min(tonumber(ARGV[2]), left))
if given > 0 then redis.call('INCRBY', key, given) end
redis.call('EXPIRE', key, 90000)
local rest = 86400 - now % 86400
return {given, math.max(0, left - given), rest, rest}
"""


class Verdict(NamedTuple):
    passed: bool
    left: int
    full_in_s: int  # until the whole quota is there again
    retry_after_s: int


class _Lease:
    __slots__ = ("asked", "elsewhere", "full_in_s", "here", "low", "none_until", "retry_after_s", "until")

    def __init__(self) -> None:
        self.here = 0  # to spend in this process
        self.low = 0  # ask for more below this
        self.elsewhere = 0  # what was left in Redis when it was last asked
        self.full_in_s = self.retry_after_s = 0
        self.until = self.none_until = 0.0
        self.asked: asyncio.Task[None] | None = None


class Limits:
    """All limits as one gateway knows them."""

    def __init__(self, redis_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1)
        self._bucket = self._redis.register_script(_BUCKET)
        self._count = self._redis.register_script(_COUNT)
        self._clock = clock
        self._leases: dict[tuple[str, str, int], _Lease] = {}
        self._alone_until = 0.0
        self.own = Buckets()

    async def close(self) -> None:
        for lease in list(self._leases.values()):
            if lease.asked is not None:
                lease.asked.cancel()
        await self._redis.aclose()

    def take(self, who: str, what: str, most: int, *, window_s: int = MINUTE) -> Verdict | None:
        """Spend one request of this caller. None: nothing is known here; `ask` first."""
        now = self._clock()
        if now < self._alone_until:
            return self.own.take((who, what), most, now, window_s=window_s)
        lease = self._leases.get((who, what, window_s))
        if lease is None:
            return None
        if lease.here >= 1 and now < lease.until:
            lease.here -= 1
            if lease.here < lease.low and lease.asked is None:
                self._ask_soon(lease, who, what, most, window_s)
            return Verdict(True, lease.elsewhere + lease.here, lease.full_in_s, 0)
        if now < lease.none_until:
            return Verdict(False, 0, lease.full_in_s, lease.retry_after_s)
        return None

    async def ask(self, who: str, what: str, most: int, *, window_s: int = MINUTE) -> Verdict:
        """Spend one request, waiting for Redis where nothing is left here. Never raises for want of Redis."""
        for _ in range(20):
            verdict = self.take(who, what, most, window_s=window_s)
            if verdict is not None:
                return verdict
            lease = self._leases.setdefault((who, what, window_s), _Lease())
            if lease.asked is None:
                self._ask_soon(lease, who, what, most, window_s)
            assert lease.asked is not None
            await asyncio.shield(lease.asked)
        return Verdict(False, 0, 1, 1)  # others were quicker every time: the limit is being used up right now

    def _ask_soon(self, lease: _Lease, who: str, what: str, most: int, window_s: int) -> None:
        task = self._refill(lease, who, what, most, window_s)
        lease.asked = asyncio.get_running_loop().create_task(task)
        if len(self._leases) > MANY:
            now = self._clock()
            self._leases = {
                key: one for key, one in self._leases.items() if one.until > now or one.asked is not None
            }

    async def _refill(self, lease: _Lease, who: str, what: str, most: int, window_s: int) -> None:
        want = max(1, min(most // PART, MOST_AT_ONCE))
        script: Any = self._bucket if window_s == MINUTE else self._count
        try:
            given, left, full_in_s, wait_s = await script(
                keys=[f"tauon:limit:{window_s}:{who}:{what}"], args=[most, want]
            )
        except (RedisError, OSError):
            if self._clock() >= self._alone_until:
                log.warning("Redis does not answer; this gateway keeps the limits on its own")
            self._alone_until = self._clock() + ALONE_S
            return
        finally:
            lease.asked = None
        now = self._clock()
        lease.here = (lease.here if now < lease.until else 0) + given
        lease.low, lease.elsewhere, lease.full_in_s = want // 2, left, full_in_s
        lease.until = now + KEPT_S
        if given < 1:
            lease.retry_after_s = max(1, wait_s)
            # not for ever: a larger limit, or a day that ends, is noticed soon
            lease.none_until = now + min(1.0, lease.retry_after_s)


class Buckets:
    """Limits of this process alone, for when Redis is away."""

    def __init__(self) -> None:
        # by caller and endpoint: what is left, when that was, rate a second
        self._buckets: dict[tuple[str, str], tuple[float, float, float]] = {}

    def take(self, key: tuple[str, str], most: int, now: float, *, window_s: int = MINUTE) -> Verdict:
        rate = most / window_s
        left, at, _rate = self._buckets.get(key, (float(most), now, rate))
        left = min(float(most), left + (now - at) * rate)
        passed = left >= 1
        if passed:
            left -= 1
        self._buckets[key] = (left, now, rate)
        if len(self._buckets) > MANY:
            self._buckets.clear()
        wait = 0 if passed else math.ceil((1 - left) / rate)
        return Verdict(passed, int(left), math.ceil((most - left) / rate), wait)


def headers(
    most: int, verdict: Verdict, *, name: bytes = b"endpoint", window_s: int = MINUTE
) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` and `RateLimit` as the IETF draft writes them."""
    return [
        (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name, most, window_s)),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (name, verdict.left, verdict.full_in_s)),
    ]
