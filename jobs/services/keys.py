"""Make and revoke keys of an endpoint. A key is a token that reaches this one endpoint and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from ipaddress import ip_network

from django.db import transaction
from django.db.models import Sum
from django.utils.translation import gettext as _

from billing.models import UsageEvent
from jobs.models import Endpoint, EndpointKey
from jobs.services.usage import METER
from tenants import audit, outbox, permissions
from tenants.actor import SYSTEM, Actor
from tenants.errors import Fault, Invalid
from tenants.permissions import require
from tenants.services import tokens

SCOPE = "endpoints:invoke"
MOST_PER_MINUTE = 1_000_000
MOST_PER_DAY = 1_000_000_000
MOST_NETWORKS = 50


def create_key(
    actor: Actor,
    endpoint: Endpoint,
    *,
    name: str,
    expires_in_days: int | None,
    per_minute: int | None = None,
    per_day: int | None = None,
    networks: Sequence[str] = (),
) -> tuple[EndpointKey, str]:
    """Make a key; returns it and its plain text, which exists nowhere else.

    `per_minute` None: the endpoint's own rate. `networks` empty: it may be used from anywhere.
    """
    require(actor, "endpoints.publish", endpoint)
    faults = [
        *_range("/per_minute", per_minute, MOST_PER_MINUTE),
        *_range("/per_day", per_day, MOST_PER_DAY),
    ]
    allowed, wrong = _networks(networks)
    faults += wrong
    if faults:
        raise Invalid(faults[0].detail if len(faults) == 1 else "", faults=faults)
    with transaction.atomic():
        token, plain = tokens.create_token(
            actor, name=name, scopes=[SCOPE], expires_in_days=expires_in_days, granted_only=True
        )
        permissions.grant("endpoints.invoke", endpoint, to=token)
        key = EndpointKey.objects.create(
            tenant=endpoint.tenant,
            endpoint=endpoint,
            token=token,
            per_minute=per_minute,
            per_day=per_day,
            networks=allowed,
        )
        audit.record(
            actor, "endpoint.key_created", endpoint, key=key.public_id, name=token.name,
            per_minute=per_minute, per_day=per_day, networks=allowed,
        )  # fmt: skip
        outbox.enqueue("jobs.publish_routes")
    return key, plain


def revoke_key(actor: Actor, key: EndpointKey) -> None:
    """End a key for good; gateways follow within a second. Twice is as good as once."""
    require(actor, "endpoints.publish", key.endpoint)
    with transaction.atomic():
        if key.token.revoked_at is None:
            # whoever may publish here may end every key of the endpoint, also a colleague's
            tokens.revoke_token(SYSTEM, key.token)
            audit.record(actor, "endpoint.key_revoked", key.endpoint, key=key.public_id, name=key.token.name)


def requests_by_key(endpoint: Endpoint, keys: Iterable[EndpointKey], since: datetime) -> dict[str, int]:
    """Answered requests of each key from a moment on, by public id of its token."""
    rows = UsageEvent.objects.filter(
        tenant=endpoint.tenant_id,
        meter_id=METER,
        subject=endpoint.public_id,
        event_time__gte=since,
        dims__token__in=[key.token.public_id for key in keys],
    )
    sums = rows.order_by().values_list("dims__token").annotate(sum=Sum("quantity"))
    return {token: int(quantity) for token, quantity in sums}


def _range(pointer: str, value: int | None, most: int) -> list[Fault]:
    if value is None or 1 <= value <= most:
        return []
    text = _("A whole number from 1 to %(most)s, or nothing for no limit of its own.")
    return [Fault(pointer, "range", text % {"most": most})]


def _networks(given: Sequence[str]) -> tuple[list[str], list[Fault]]:
    """Addresses as networks in one spelling, and what is wrong with the rest."""
    found: list[str] = []
    faults: list[Fault] = []
    for index, one in enumerate(given):
        try:
            found.append(str(ip_network(one.strip(), strict=False)))
        except ValueError:
            text = _(
                "%(address)s is no address and no network. Write one like 203.0.113.7 or 203.0.113.0/24."
            )
            faults.append(Fault(f"/networks/{index}", "address", text % {"address": one[:50]}))
    if len(given) > MOST_NETWORKS:
        text = _("At most %(most)s addresses fit into one key.")
        faults.append(Fault("/networks", "too_many", text % {"most": MOST_NETWORKS}))
    return list(dict.fromkeys(found)), faults
