"""The billing account of a tenant: made when first asked for, changed by staff, parked when books disagree."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from billing import clock
from billing.models import BillingAccount, Invoice, TaxRate, UsageEvent
from billing.months import Calendar, Month
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Fault, Hidden, Invalid
from tenants.models import Tenant
from tenants.permissions import require

FROZEN = ("currency", "zone", "anchor_day")  # once there is usage
CHANGEABLE = (
    *FROZEN, "plan", "mode", "grace_minutes", "terms_days", "commitment", "tax_region", "buyer_details",
    "language", "customer",
)  # fmt: skip


def of(tenant: Tenant) -> BillingAccount:
    """The tenant's account; the first time, one in the installation's currency on UTC months."""
    found = BillingAccount.objects.filter(tenant=tenant).first()
    if found is None:
        found, _made = BillingAccount.objects.get_or_create(
            tenant=tenant, defaults={"currency": settings.CURRENCY}
        )
    return found


def lock(tenant: Tenant) -> BillingAccount:
    """The account, locked until the transaction ends: whoever spends or books credit holds it."""
    locked = BillingAccount.objects.select_for_update()
    return locked.filter(tenant=tenant).first() or locked.get(pk=of(tenant).pk)


def currency_of(tenant: Tenant) -> str:
    """What this tenant is billed in."""
    return of(tenant).currency


def calendar_of(tenant: Tenant) -> Calendar:
    """Where this tenant's months begin."""
    return of(tenant).calendar


def this_month(tenant: Tenant) -> Month:
    """The month that runs on the tenant's calendar."""
    return calendar_of(tenant).month_of(clock.now())


def tax_rate(account: BillingAccount, category: str, at: datetime) -> TaxRate | None:
    """The rate in force for a category of meters at a moment; None where the account has no tax."""
    if not account.tax_region:
        return None
    rates = TaxRate.objects.filter(region=account.tax_region, category=category, valid_from__lte=at)
    found = rates.exclude(valid_to__lte=at).first()
    if found is None:
        text = _(
            "There is no tax rate for %(category)s in %(region)s on %(day)s. "
            "Ask the staff of this installation to add one under Tax rates."
        )
        raise Conflict(text % {"category": category, "region": account.tax_region, "day": f"{at:%Y-%m-%d}"})
    return found


def find(actor: Actor, tenant_id: str) -> BillingAccount:
    """For staff: the account of a tenant's public id, else Hidden."""
    if not actor.may("platform.reports"):
        raise Hidden
    tenant = Tenant.objects.filter(public_id=tenant_id).first()
    if tenant is None:
        raise Hidden
    return of(tenant)


def change_account(actor: Actor, tenant: Tenant, **changes: Any) -> BillingAccount:
    """Set how a tenant is billed. Currency, zone and first day only while there is no usage yet."""
    require(actor, "invoices.finalize")
    unknown = set(changes) - set(CHANGEABLE)
    if unknown:
        raise Invalid.at(f"/{min(unknown)}", "unknown", _("An account has no such field."))
    with transaction.atomic():
        account = lock(tenant)
        before = {name: getattr(account, name) for name in changes}
        moved = [name for name in FROZEN if name in changes and changes[name] != before[name]]
        if moved and _is_used(tenant):
            text = _("This account has usage already; its currency, time zone and first day stay.")
            raise Conflict(text)
        for name, value in changes.items():
            setattr(account, name, value)
        account.updated_at = clock.now()
        try:
            account.full_clean()
        except ValidationError as error:
            raise Invalid(
                _("The request is not valid."),
                faults=[
                    Fault(f"/{name}", "invalid", " ".join(messages))
                    for name, messages in error.message_dict.items()
                ],
            ) from error
        account.save()
        told = {
            name: f"{before[name]} -> {changes[name]}" for name in changes if changes[name] != before[name]
        }
        audit.record(actor, "account.changed", account, tenant=tenant, **told)
    return account


def park(tenant: Tenant, why: str) -> bool:
    """Finalize nothing of this tenant until staff have looked; False if it is parked already."""
    account = of(tenant)
    with transaction.atomic():
        parked = BillingAccount.objects.filter(pk=account.pk, parked_at=None).update(
            parked_at=clock.now(), parked_reason=why[:4000]
        )
        if parked:
            audit.record(SYSTEM, "account.parked", account, tenant=tenant, why=why[:400])
    return bool(parked)


def unpark(actor: Actor, tenant: Tenant, *, note: str) -> BillingAccount:
    """Let an account be billed again, with what was found written down."""
    require(actor, "invoices.finalize")
    if not note.strip():
        raise Invalid.at("/note", "required", _("Say what was wrong and what was done about it."))
    with transaction.atomic():
        account = lock(tenant)
        if not account.is_parked:
            raise Conflict(_("This account is not parked."))
        account.parked_at, account.parked_reason = None, ""
        account.save(update_fields=["parked_at", "parked_reason"])
        judged = clock.now().isoformat()
        audit.record(actor, "account.unparked", account, tenant=tenant, note=note[:400], judged_until=judged)
    return account


def _is_used(tenant: Tenant) -> bool:
    return UsageEvent.objects.filter(tenant=tenant).exists() or Invoice.objects.filter(tenant=tenant).exists()
