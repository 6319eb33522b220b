"""Builds the Actor from a request, a bearer token or a websocket; the only place that does."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from tenants.actor import NOBODY, Actor, ActorKind
from tenants.models import ApiToken, Membership, Tenant, User
from tenants.roles import Role


class Request(HttpRequest):
    """A request as views get it: the middleware has put who acts and a request id on it."""

    actor: Actor
    request_id: str
    htmx: Any  # django-htmx's details; truthy when a fragment is asked for


PREFIX = "tau_"
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE = re.compile(r"^tau_[0-9A-Za-z]{36}$")


def new_token() -> str:
    """`tau_` + 30 base62 digits + 6 of CRC-32, so that scanners and typing errors are told apart at once."""
    body = "".join(secrets.choice(_BASE62) for _ in range(30))
    return PREFIX + body + _crc(body)


def looks_like_token(token: str) -> bool:
    """Shape and checksum are right; says nothing of whether it is known."""
    return bool(_SHAPE.match(token)) and _crc(token[4:34]) == token[34:]


def digest(token: str) -> str:
    """What is stored of a token or a link."""
    return hashlib.sha256(token.encode()).hexdigest()


def actor_from_token(token: str, *, request_id: str = "", address: str = "") -> Actor | None:
    """The actor behind a bearer token, or None if it is unknown, revoked, expired or orphaned."""
    if not looks_like_token(token):
        return None
    found = (
        ApiToken.objects.usable()
        .select_related("tenant", "created_by")
        .filter(digest=digest(token), tenant__closed_at=None)
        .first()
    )
    if found is None:
        return None
    # the role is read each time: a token is never stronger than the person who made it is today
    membership = Membership.objects.filter(tenant=found.tenant, user=found.created_by).first()
    if membership is None:
        return None
    now = timezone.now()
    if found.last_used_at is None or (now - found.last_used_at).total_seconds() > 60:
        ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
    return Actor(
        kind=ActorKind.TOKEN,
        user=found.created_by,
        token=found,
        tenant=found.tenant,
        role=Role(membership.role),
        scopes=frozenset(found.scopes),
        granted_only=found.granted_only,
        request_id=request_id,
        address=address,
    )


def actor_from_user(
    user: Any, *, tenant: Tenant | None = None, request_id: str = "", address: str = ""
) -> Actor:
    """The actor behind a signed-in person, in their active tenant, or in `tenant` where they belong to it."""
    if not isinstance(user, User) or not user.is_active:
        return NOBODY
    memberships = (
        user.memberships.select_related("tenant").filter(tenant__closed_at=None).order_by("created_at")
    )
    wanted = tenant.pk if tenant is not None else user.active_tenant_id
    membership = next((m for m in memberships if m.tenant_id == wanted), None)
    if membership is None and tenant is None:
        membership = next(iter(memberships), None)
    return Actor(
        kind=ActorKind.PERSON,
        user=user,
        tenant=membership.tenant if membership else None,
        role=Role(membership.role) if membership else None,
        request_id=request_id,
        address=address,
    )


def bearer(header: str) -> str | None:
    """The token of an `Authorization: Bearer ...` header, or None when there is no such header."""
    scheme, _, value = header.partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def _crc(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits
