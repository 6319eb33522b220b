"""Whose money a report may read: one tenant's, or everybody's. Decided once, at the door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from billing.models import BillingAccount
from tenants.actor import Actor
from tenants.errors import Hidden, Invalid
from tenants.models import Tenant
from tenants.permissions import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A tenant, or None for everybody; and the one currency that is summed."""

    tenant: Tenant | None
    currency: str

    def rows(self, rows: QuerySet[Any]) -> Any:
        """Rows of a model with a tenant, cut down to what this scope may read."""
        return rows if self.tenant is None else rows.filter(tenant=self.tenant)


def everybody(actor: Actor, *, tenant: str = "", currency: str = "") -> Scope:
    """All tenants, or the one with this public id. For staff."""
    require(actor, "platform.reports")
    found = None
    if tenant:
        found = Tenant.objects.filter(public_id=tenant).first()
        if found is None:
            raise Hidden
    return Scope(tenant=found, currency=_currency(currency) or _home(found))


def own(actor: Actor, *, permission: str = "usage.view", currency: str = "") -> Scope:
    """The actor's own tenant."""
    require(actor, permission)
    tenant = actor.the_tenant
    return Scope(tenant=tenant, currency=_currency(currency) or _home(tenant))


def _home(tenant: Tenant | None) -> str:
    """The currency of a tenant's account, or the installation's. A report makes no account: it only reads."""
    codes = BillingAccount.objects.filter(tenant=tenant).values_list("currency", flat=True)
    return codes.first() or settings.CURRENCY


def _currency(given: str) -> str:
    if given and not (len(given) == 3 and given.isascii() and given.isalpha() and given.isupper()):
        raise Invalid.at("/currency", "invalid", "A currency is three capital letters, such as USD.")
    return given
