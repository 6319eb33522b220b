"""Share one dataset, job, model or endpoint with one person or one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from tenants import audit, outbox, permissions
from tenants.actor import Actor
from tenants.errors import Invalid
from tenants.models import ApiToken, User
from tenants.roles import GRANTABLE
from tenants.services import accounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who besides the tenant's own people may do what with one object."""

    kind: str  # "person" or "token"
    holder_id: str  # public id of the person or token
    label: str  # address of the person, name of the token
    permissions: tuple[str, ...]  # ("endpoints.invoke", "endpoints.view")


def share(
    actor: Actor, target: Any, *, permission: str, with_email: str = "", with_token: str | ApiToken = ""
) -> Grant:
    """Let one person (of any tenant) or one token of the tenant do one thing with one object, and see it."""
    permissions.require(actor, f"{target.NOUN}.share", target)
    if permission not in GRANTABLE[target.NOUN]:
        text = _("%(permission)s cannot be shared. It can be one of: %(known)s.")
        known = ", ".join(sorted(GRANTABLE[target.NOUN]))
        raise Invalid.at("/permission", "not_grantable", text % {"permission": permission, "known": known})
    holder = _holder(actor, with_email, with_token)
    if isinstance(holder, ApiToken) and not holder.is_usable:
        raise Invalid.at("/token", "dead_token", _("This token was revoked or has expired. Make a new one."))
    with transaction.atomic():
        permissions.grant(permission, target, to=holder)
        audit.record(
            actor, f"{_noun(target)}.shared", target, permission=permission, **{"with": _label(holder)}
        )
        outbox.enqueue("jobs.publish_routes")
    return next(one for one in _grants(target) if one.holder_id == holder.public_id)


def unshare(actor: Actor, target: Any, *, with_email: str = "", with_token: str | ApiToken = "") -> None:
    """Take every grant on this object away from one person or token. Twice is as good as once."""
    permissions.require(actor, f"{target.NOUN}.share", target)
    _one_of(with_email, with_token)
    holder = _holder_on(target, with_email) if with_email else _holder(actor, with_email, with_token)
    if holder is None:  # whoever holds nothing here is not looked up: that would tell who has an account
        return
    with transaction.atomic():
        permissions.revoke(target, to=holder)
        audit.record(actor, f"{_noun(target)}.unshared", target, **{"with": _label(holder)})
        outbox.enqueue("jobs.publish_routes")


def grants_of(actor: Actor, target: Any) -> list[Grant]:
    """Every grant on this object, for those who may share it."""
    permissions.require(actor, f"{target.NOUN}.share", target)
    return _grants(target)


def _grants(target: Any) -> list[Grant]:
    found = permissions.grants(target)
    names = [holder.name.removeprefix("token:") for holder, _verbs in found if not isinstance(holder, User)]
    tokens = {token.public_id: token for token in ApiToken.objects.filter(public_id__in=names)}
    result = []
    for holder, verbs in found:
        kind = "person" if isinstance(holder, User) else "token"
        one = holder if kind == "person" else tokens.get(holder.name.removeprefix("token:"))
        if one is not None:
            result.append(
                Grant(kind=kind, holder_id=one.public_id, label=_label(one), permissions=tuple(verbs))
            )
    return sorted(result, key=lambda grant: (grant.kind, grant.label))


def _one_of(with_email: str, with_token: str | ApiToken) -> None:
    if bool(with_email) == bool(with_token):
        raise Invalid.at("/email", "one_of", _("Name one person by e-mail address or one token, not both."))


def _holder(actor: Actor, with_email: str, with_token: str | ApiToken) -> User | ApiToken:
    _one_of(with_email, with_token)
    if with_email:
        person = accounts.confirmed_person(with_email)
        if person is None:  # one answer for both, so that it does not tell who has an account
            text = _(
                "%(email)s is not the confirmed address of anybody here. "
                "Ask them to sign up and to confirm it, then share again."
            )
            raise Invalid.at("/email", "unknown_person", text % {"email": with_email})
        return person
    public_id = with_token if isinstance(with_token, str) else with_token.public_id
    token: ApiToken | None = ApiToken.objects.managed_by(actor).filter(public_id=public_id).first()
    if token is None:
        raise Invalid.at("/token", "unknown_token", _("Your tenant has no token with this id."))
    return token


def _holder_on(target: Any, with_email: str) -> User | None:
    """The person of this address among those who hold something on the object."""
    wanted = with_email.strip().lower()
    holders = (one for one, _verbs in permissions.grants(target) if isinstance(one, User))
    return next((one for one in holders if one.email.lower() == wanted), None)


def _label(holder: User | ApiToken) -> str:
    return holder.email if isinstance(holder, User) else holder.name


def _noun(target: Any) -> str:
    return str(target.NOUN).removesuffix("s")
