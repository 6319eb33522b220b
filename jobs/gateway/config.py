"""What the gateway reads from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROUTES_KEY = "tauon:routes"  # the whole snapshot, as JSON
VERSION_KEY = "tauon:routes:version"  # its version alone: cheap to poll
ROUTES_CHANNEL = "tauon:routes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    redis_url: str
    usage_dir: Path
    requests_dir: Path  # of the request log
    max_body_bytes: int = 1024 * 1024
    deadline_s: float = 30.0
    header_s: float = 10.0  # a caller that needs longer for its headers is cut off
    body_s: float = 30.0  # the same for a whole request
    idle_s: float = 75.0  # a connection without a request is closed after that
    max_in_flight: int = 256  # of one worker; more are refused rather than queued
    failover_s: float = 10.0  # how long a request whose worker died waits for another one
    hold_s: float = 1.5  # how long a fresh request waits for a worker that is expected
    poll_s: float = 2.0
    segment_bytes: int = 16 * 1024 * 1024

    @classmethod
    def from_environment(cls) -> Config:
        """Read it, or stop the start with a sentence."""
        redis_url = os.environ.get("REDIS_URL", "")
        if not redis_url:
            raise SystemExit(
                "REDIS_URL is not set: the gateway reads its routes from Redis. `make up` sets it."
            )
        var = Path(os.environ.get("TAUON_VAR") or Path(__file__).resolve().parents[2] / "var")
        return cls(
            redis_url=redis_url,
            usage_dir=var / "usage",
            requests_dir=var / "requests",
            max_body_bytes=_integer("TAUON_GATEWAY_MAX_BODY_BYTES", 1024 * 1024),
            deadline_s=_integer("TAUON_GATEWAY_DEADLINE_MS", 30_000) / 1000,
            header_s=_integer("TAUON_GATEWAY_HEADER_MS", 10_000) / 1000,
            body_s=_integer("TAUON_GATEWAY_BODY_MS", 30_000) / 1000,
            idle_s=_integer("TAUON_GATEWAY_IDLE_MS", 75_000) / 1000,
            max_in_flight=_integer("TAUON_GATEWAY_MAX_IN_FLIGHT", 256),
            failover_s=_integer("TAUON_GATEWAY_FAILOVER_MS", 10_000) / 1000,
            hold_s=_integer("TAUON_GATEWAY_HOLD_MS", 1_500) / 1000,
            segment_bytes=_integer("TAUON_GATEWAY_SEGMENT_BYTES", 16 * 1024 * 1024),
        )


def _integer(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not value.isdigit() or int(value) < 1:
        raise SystemExit(f"{name}: {value!r} is not a whole number above zero")
    return int(value)
