"""Money set aside when work is placed. Beats turn it into accrued usage; the end of the work frees the rest."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import DecimalField, Exists, F, OuterRef, Sum
from django.db.models.functions import Least
from django.utils.translation import gettext as _

from billing import clock, money
from billing.errors import NotEnoughCredit
from billing.models import Allocation, Hold
from billing.services import accounts, credits
from tenants.errors import Invalid
from tenants.models import Tenant

LONGEST_S = 7 * 86400  # a hold nobody beats on is freed after this at the latest


def place_hold(
    tenant: Tenant, *, source: str, amount: Decimal, lives_s: int = LONGEST_S, meters: tuple[str, ...] = ()
) -> Hold:
    """Set an amount (without tax) aside. A prepaid tenant must have it to spare, counted under one lock.

    The same source again returns the first hold. In the caller's transaction.
    """
    if not amount.is_finite() or amount < 0:
        raise Invalid.at("/amount", "invalid", _("A hold is zero or more."))
    with transaction.atomic():
        account = accounts.lock(tenant)
        if known := Hold.objects.filter(source=source).first():
            return known
        wanted = money.kept(credits.with_tax(account, amount))
        if account.is_prepaid:
            # holds first, usage second: a beat in between is counted in both, never in neither
            held = held_of(tenant)
            free = money.EXACT.subtract(credits.spendable(tenant, meters=meters), held)
            if wanted > free or free <= 0:
                raise _refusal(tenant, account.currency, wanted, free)
        return Hold.objects.create(
            tenant=tenant,
            source=source,
            currency=account.currency,
            amount=wanted,
            expires_at=clock.now() + timedelta(seconds=lives_s),
        )


def capture(hold_id: int, cost: Decimal) -> None:
    """Move what a beat cost (without tax) from held to accrued; what goes beyond the hold is accrued alone."""
    hold = Hold.objects.select_related("tenant").get(pk=hold_id)
    moved = money.kept(credits.with_tax(accounts.of(hold.tenant), cost))
    kind = DecimalField(max_digits=38, decimal_places=12)
    Hold.objects.filter(pk=hold_id, released_at=None).update(
        captured=Least(F("amount"), F("captured") + moved, output_field=kind)
    )


def release(hold_id: int, *, reason: str) -> bool:
    """Free what is left of a hold, once."""
    freed = Hold.objects.filter(pk=hold_id, released_at=None).update(
        released_at=clock.now(), release_reason=reason[:60]
    )
    return bool(freed)


def release_if_idle(hold_id: int, *, reason: str) -> bool:
    """Free a hold once the last thing it was placed for has ended."""
    if Allocation.objects.open().filter(hold=hold_id).exists():
        return False
    return release(hold_id, reason=reason)


def release_source(source: str, *, reason: str) -> bool:
    """Free the hold of a piece of work that ended before anything was allocated for it."""
    hold = Hold.objects.filter(source=source).first()
    return hold is not None and release(hold.pk, reason=reason)


def release_expired() -> int:
    """Free holds that outlived their time and have nothing running; returns how many."""
    running = Allocation.objects.open().filter(hold=OuterRef("pk"))
    stale = Hold.objects.filter(~Exists(running), released_at=None, expires_at__lt=clock.now())
    return sum(release(hold_id, reason="expired") for hold_id in stale.values_list("pk", flat=True))


def held_of(tenant: Tenant) -> Decimal:
    """What is set aside and not accrued yet."""
    open_now = Hold.objects.filter(tenant=tenant, released_at=None)
    return open_now.aggregate(sum=Sum(F("amount") - F("captured")))["sum"] or money.ZERO


def is_out_of_credit(tenant: Tenant) -> bool:
    """Whether a prepaid tenant's usage has reached its credit: then running work must stop."""
    return accounts.of(tenant).is_prepaid and credits.spendable(tenant) <= 0


def ensure_credit(tenant: Tenant, *, amount: Decimal, meters: tuple[str, ...] = ()) -> None:
    """Refuse work a prepaid tenant cannot pay for now; advice before the hold decides."""
    account = accounts.of(tenant)
    if not account.is_prepaid:
        return
    wanted = credits.with_tax(account, amount)
    free = money.EXACT.subtract(credits.spendable(tenant, meters=meters), held_of(tenant))
    if wanted > free or free <= 0:
        raise _refusal(tenant, account.currency, wanted, free)


def _refusal(tenant: Tenant, currency: str, wanted: Decimal, free: Decimal) -> NotEnoughCredit:
    text = _(
        "%(tenant)s has %(free)s of credit to spare and this needs %(wanted)s. "
        "Add credit, lower the limits of this work, or wait until running work has ended."
    )
    said = {
        "tenant": tenant.name,
        "free": f"{money.text(max(free, money.ZERO), currency)} {currency}",
        "wanted": f"{money.text(wanted, currency)} {currency}",
    }
    return NotEnoughCredit(text % said)
