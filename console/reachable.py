"""Asks the servers of DATABASE_URL and REDIS_URL once, before anything starts: a sentence instead of a traceback."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

OLDEST_POSTGRES = 150_000  # the oldest this was run on
PATIENCE_S = 5


def check_database(url: str) -> None:
    try:
        with psycopg.connect(url, connect_timeout=PATIENCE_S) as connection:
            found = connection.info.server_version
    except (psycopg.Error, UnicodeError) as error:
        raise SystemExit(
            f"DATABASE_URL: PostgreSQL at {_place(url)} cannot be used: {str(error).strip()}\n"
            "Start it, mend the address, or unset DATABASE_URL to use the embedded one."
        ) from None
    if found < OLDEST_POSTGRES:
        raise SystemExit(
            f"DATABASE_URL: {_place(url)} is PostgreSQL {found // 10_000}; Tauon needs 15 or newer. "
            "Upgrade it, or unset DATABASE_URL to use the embedded one."
        )


def check_redis(url: str) -> None:
    client = redis.Redis.from_url(url, socket_connect_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise SystemExit(
            f"REDIS_URL: Redis at {_place(url)} cannot be used: {error}\n"
            "Start it, mend the address, or unset REDIS_URL to use the embedded one."
        ) from None
    finally:
        client.close()


def _place(url: str) -> str:
    """Where it is, without the password."""
    return urlsplit(url).netloc.rsplit("@", 1)[-1] or urlsplit(url).path
