"""Who may call, from where, how often and how many at once. Everything it needs is in memory."""

from __future__ import annotations

import hashlib
import time

from jobs.gateway import limits, problems
from jobs.gateway.limits import DAY, Limits, Verdict
from jobs.gateway.problems import Headers, Problem
from jobs.gateway.pulse import Pulse
from jobs.gateway.snapshot import Route, Snapshot, Token


def admit(snapshot: Snapshot, key: str, authorization: bytes, address: str) -> tuple[Route, Token | None]:
    """401 without a known token, 404 to strangers, 403 to colleagues without the right or the address."""
    if snapshot.version == 0:
        raise problems.unavailable("starting", "The gateway has no routes yet. Try again in a moment.")
    route = snapshot.routes.get(key)
    token = token_of(authorization, snapshot)
    if token is None:
        if route is not None and route.public:
            return route, None
        raise problems.not_signed_in("Send a token: Authorization: Bearer tau_...")
    if route is None:
        raise problems.not_found()
    if not route.public and not token.may_call(route):
        raise problems.forbidden() if token.tenant_id == route.tenant_id else problems.not_found()
    if not token.may_come_from(address):
        raise Problem(
            403,
            "address_not_allowed",
            f"This key may not be used from {address or 'here'}. Its list of addresses says from where it may.",
        )
    return route, token


def token_of(header: bytes, snapshot: Snapshot) -> Token | None:
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


def rate_of(route: Route, token: Token | None) -> int:
    """Requests a minute of this caller: a key's own rate comes before the endpoint's."""
    return (token.per_minute if token is not None else None) or route.requests_per_minute


class Admission:
    """Counts callers against their limits."""

    def __init__(self, shared: Limits, pulse: Pulse) -> None:
        self._limits, self._pulse = shared, pulse

    async def within_rate(self, route: Route, token: Token | None, address: str) -> Headers:
        """429 beyond the caller's own rate or day; else the headers that say where they stand."""
        who = token.id if token is not None else address
        most = rate_of(route, token)
        verdict = await self._limits.ask(who, route.id, most)
        standing = limits.headers(most, verdict)
        if not verdict.passed:
            raise self._too_many(route, verdict, standing, f"{most} requests a minute")
        if token is not None and token.per_day:
            # a key is made for one endpoint; its day is counted over all it may call
            verdict = await self._limits.ask(token.id, "day", token.per_day, window_s=DAY)
            by_day = limits.headers(token.per_day, verdict, name=b"day", window_s=DAY)
            standing = [
                (name, b"%b, %b" % (one, two)) for (name, one), (_, two) in zip(standing, by_day, strict=True)
            ]
            if not verdict.passed:
                raise self._too_many(route, verdict, standing, f"{token.per_day} requests a day")
        return standing

    def room(self, route: Route, standing: Headers) -> None:
        """429 while as many requests as the endpoint takes at once are inside."""
        if is_full(route, self._pulse):
            self._pulse.of(route.id, route.model_version).refused += 1
            raise Problem(
                429,
                "too_many_at_once",
                f"This endpoint takes {route.most_at_once} requests at once. Wait for an answer, then send the next.",
                headers=[*standing, (b"retry-after", b"1")],
            )

    def _too_many(self, route: Route, verdict: Verdict, standing: Headers, most: str) -> Problem:
        self._pulse.of(route.id, route.model_version).refused += 1
        return Problem(
            429,
            "too_many_requests",
            f"This endpoint takes {most} from one caller. Try again in {verdict.retry_after_s} s.",
            headers=[*standing, (b"retry-after", b"%d" % verdict.retry_after_s)],
        )


def is_full(route: Route, pulse: Pulse) -> bool:
    return route.most_at_once is not None and pulse.inside.get(route.id, 0) >= route.most_at_once
