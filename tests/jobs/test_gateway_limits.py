"""Limits leased from a real Redis: shared by all, exact in sum, and kept alone while Redis is away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from django.conf import settings

from jobs import routes
from jobs.gateway.limits import DAY, Limits

GONE = "unix:///nowhere/redis.sock"


@pytest.fixture
async def two() -> AsyncIterator[tuple[Limits, Limits]]:
    made = Limits(settings.REDIS_URL), Limits(settings.REDIS_URL)
    yield made
    for one in made:
        await one.close()


@pytest.fixture
def who() -> str:
    return secrets.token_hex(8)  # nobody has asked under this name yet


async def spend(limits: Limits, who: str, times: int, most: int, **more: int) -> int:
    verdicts = [await limits.ask(who, "ep", most, **more) for _ in range(times)]
    return sum(verdict.passed for verdict in verdicts)


async def test_two_gateways_share_one_limit(two: tuple[Limits, Limits], who: str) -> None:
    one, other = two
    passed = sum(
        await asyncio.gather(spend(one, who, 80, 100, window_s=DAY), spend(other, who, 80, 100, window_s=DAY))
    )
    # what one has borrowed and not spent is not there for the other: a fiftieth of the limit each
    assert 100 - 2 * 2 <= passed <= 100


async def test_a_limit_of_two_passes_two(two: tuple[Limits, Limits], who: str) -> None:
    one, other = two
    assert await spend(one, who, 1, 2) + await spend(other, who, 1, 2) == 2
    refused = await one.ask(who, "ep", 2)
    assert not refused.passed and 1 <= refused.retry_after_s <= 30
    assert (await one.ask(who, "elsewhere", 2)).passed


async def test_many_at_once_do_not_get_more(two: tuple[Limits, Limits], who: str) -> None:
    verdicts = await asyncio.gather(
        *(limits.ask(who, "ep", 7, window_s=DAY) for limits in two for _ in range(40))
    )
    assert sum(verdict.passed for verdict in verdicts) == 7


async def test_a_thousand_requests_ask_redis_few_times(two: tuple[Limits, Limits], who: str) -> None:
    def asked() -> int:
        told = routes.redis().info("commandstats")
        return int(told.get("cmdstat_evalsha", {"calls": 0})["calls"])

    before = asked()
    assert await spend(two[0], who, 1000, 100_000) == 1000
    assert asked() - before <= 20


async def test_without_redis_each_gateway_keeps_the_limit_alone(who: str) -> None:
    alone = Limits(GONE)
    assert await spend(alone, who, 10, 4) == 4
    await alone.close()
