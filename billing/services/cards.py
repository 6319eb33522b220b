"""The card a tenant pays with: entered on a page of the provider, so that no number of it ever touches us."""

from __future__ import annotations

import re

from django.db import transaction
from django.utils.translation import gettext as _

from billing.services import accounts, providers
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict
from tenants.permissions import require

_SESSION = re.compile(r"[A-Za-z0-9_]{1,200}", re.ASCII)


def begin_card(actor: Actor, *, done: str, back: str) -> str:
    """The address of the provider's page; the tenant's customer there is made the first time."""
    require(actor, "budgets.manage")
    tenant = actor.the_tenant
    page = providers.chosen().card_page(accounts.of(tenant), done=done, back=back)
    with transaction.atomic():
        account = accounts.lock(tenant)
        if account.customer and account.customer != page.customer:
            raise Conflict(_("Somebody else changed this a moment ago. Begin again."))
        if not account.customer:
            account.customer = page.customer
            account.save(update_fields=["customer"])
            audit.record(actor, "account.changed", account, tenant=tenant, customer=page.customer)
    return page.url


def keep_card(actor: Actor, *, session: str) -> None:
    """Pay with the card of a finished session from now on. Twice is once."""
    require(actor, "budgets.manage")
    if not _SESSION.fullmatch(session):
        raise Conflict(_("No card was entered yet. Begin again."))
    account = accounts.of(actor.the_tenant)
    providers.chosen().keep_card(account, session)
    audit.record(actor, "card.kept", account, tenant=account.tenant)
