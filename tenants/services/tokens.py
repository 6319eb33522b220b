"""API tokens: made once, shown once, revoked at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants import audit, http, outbox
from tenants.actor import Actor
from tenants.errors import Fault, Invalid, NotSignedIn
from tenants.models import ApiToken
from tenants.permissions import forget_token, require
from tenants.roles import SCOPES, scopes_of

LONGEST_DAYS = 3650


def scopes_within_reach(actor: Actor) -> tuple[str, ...]:
    """Scopes this actor may put into a token: never more than their role means or their own token carries."""
    if actor.role is None:
        return ()
    reach = scopes_of(actor.role, staff=actor.is_staff)
    return tuple(scope for scope in reach if actor.scopes is None or scope in actor.scopes)


def create_token(
    actor: Actor, *, name: str, scopes: Sequence[str], expires_in_days: int | None, granted_only: bool
) -> tuple[ApiToken, str]:
    """Make a token of the active tenant; returns it and its plain text, which exists nowhere else.

    `expires_in_days` None: it lives until revoked. `granted_only`: it reaches only objects shared with it.
    """
    require(actor, "tokens.create")
    name = name.strip()
    faults = _faults(actor, name, scopes, expires_in_days)
    if faults:
        raise Invalid(faults[0].detail if len(faults) == 1 else "", faults=faults)
    now = timezone.now()
    expires_at = now + timedelta(days=expires_in_days) if expires_in_days is not None else None
    if actor.token is not None and actor.token.expires_at is not None:
        # a token must not outlive itself through a child
        expires_at = min(expires_at or actor.token.expires_at, actor.token.expires_at)
    plain = http.new_token()
    with transaction.atomic():
        if actor.token is not None:
            # the lock of revoke_token: a token made at that very moment must not slip through
            alive = ApiToken.objects.select_for_update(of=("self",)).filter(revoked_at=None)
            if not alive.filter(pk=actor.token.pk).exists():
                raise NotSignedIn
        token = ApiToken.objects.create(
            tenant=actor.the_tenant,
            created_by=actor.the_user,
            parent=actor.token,
            name=name,
            digest=http.digest(plain),
            hint=f"{plain[:6]}…{plain[-4:]}",
            scopes=[scope for scope in SCOPES if scope in set(scopes)],
            granted_only=granted_only,
            expires_at=expires_at,
        )
        audit.record(
            actor, "token.created", token, scopes=token.scopes, granted_only=granted_only,
            expires_on=expires_at.date().isoformat() if expires_at else None,
        )  # fmt: skip
        outbox.enqueue("jobs.publish_routes")
    return token, plain


def revoke_token(actor: Actor, token: ApiToken) -> None:
    """End a token for good, with all it made: one's own, or any of the tenant for an admin.

    Twice is as good as once. Whoever stole a token must not live on in one they made with it.
    """
    require(actor, "tokens.revoke", token)
    if actor.user is None or token.created_by_id != actor.user.pk:
        require(actor, "tokens.manage", token)
    with transaction.atomic():
        now = timezone.now()
        if not ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now):
            token.refresh_from_db()
            return
        token.revoked_at = now
        forget_token(token)
        audit.record(actor, "token.revoked", token)
        _revoke_children(actor, token, now)
        outbox.enqueue("jobs.publish_routes")


def _revoke_children(actor: Actor, token: ApiToken, now: datetime) -> None:
    for child in token.children.filter(revoked_at=None).select_for_update(of=("self",)):
        child.revoked_at = now
        child.save(update_fields=["revoked_at"])
        forget_token(child)
        audit.record(actor, "token.revoked", child, made_by=token.public_id)
        _revoke_children(actor, child, now)


def _faults(actor: Actor, name: str, scopes: Sequence[str], expires_in_days: int | None) -> list[Fault]:
    faults = []
    if not name or len(name) > 80:
        faults.append(Fault("/name", "length", _("Give the token a name of 1 to 80 characters.")))
    if not scopes:
        faults.append(Fault("/scopes", "required", _("Choose at least one scope.")))
    reach = scopes_within_reach(actor)
    for index, scope in enumerate(scopes):
        if scope not in SCOPES:
            text = _("%(scope)s is not a scope. Known scopes: %(known)s.")
            words = {"scope": scope, "known": ", ".join(SCOPES)}
            faults.append(Fault(f"/scopes/{index}", "unknown_scope", text % words))
        elif scope not in reach:
            text = _("You do not hold %(scope)s yourself, so a token of yours cannot carry it.")
            faults.append(Fault(f"/scopes/{index}", "beyond_reach", text % {"scope": scope}))
    if expires_in_days is not None and not 1 <= expires_in_days <= LONGEST_DAYS:
        text = _("A token lives from 1 to %(days)s days, or without an end until it is revoked.")
        faults.append(Fault("/expires_in_days", "range", text % {"days": LONGEST_DAYS}))
    return faults
