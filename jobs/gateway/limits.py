"""Token buckets, one per caller and endpoint, in memory."""

from __future__ import annotations

import math
from typing import NamedTuple

WINDOW_S = 60
MANY = 100_000  # more buckets than this: forget those that are full again


class Verdict(NamedTuple):
    passed: bool
    left: int
    full_in_s: int  # until the whole quota is there again
    retry_after_s: int


class Buckets:
    """`requests_per_minute` fit into a bucket and flow back evenly."""

    def __init__(self) -> None:
        # by caller and endpoint: what is left, when that was, rate a second
        self._buckets: dict[tuple[str, str], tuple[float, float, float]] = {}

    def take(self, key: tuple[str, str], requests_per_minute: int, now: float) -> Verdict:
        rate = requests_per_minute / WINDOW_S
        left, at, _rate = self._buckets.get(key, (float(requests_per_minute), now, rate))
        left = min(float(requests_per_minute), left + (now - at) * rate)
        passed = left >= 1
        if passed:
            left -= 1
        self._buckets[key] = (left, now, rate)
        if len(self._buckets) > MANY:
            self._forget(now)
        wait = 0 if passed else math.ceil((1 - left) / rate)
        return Verdict(passed, int(left), math.ceil((requests_per_minute - left) / rate), wait)

    def _forget(self, now: float) -> None:
        full = [
            key
            for key, (left, at, rate) in self._buckets.items()
            if left + (now - at) * rate >= rate * WINDOW_S
        ]
        for key in full:
            del self._buckets[key]


def headers(requests_per_minute: int, verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` and `RateLimit` as the IETF draft writes them."""
    return [
        (b"ratelimit-policy", b'"endpoint";q=%d;w=%d' % (requests_per_minute, WINDOW_S)),
        (b"ratelimit", b'"endpoint";r=%d;t=%d' % (verdict.left, verdict.full_in_s)),
    ]
