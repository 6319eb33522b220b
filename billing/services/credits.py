"""Credit: granted by staff or bought, burnt by invoices, given back by voids, broken where it expires unused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.utils.translation import gettext as _

from billing import clock, money
from billing.burning import Lot
from billing.models import (
    AccountKind,
    CreditGrant,
    CreditKind,
    CreditUse,
    Invoice,
    InvoiceLine,
    LineKind,
    Meter,
    PriceVersion,
    UsageDay,
)
from billing.services import accounts, ledger, reports
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict, Invalid
from tenants.models import Tenant
from tenants.permissions import require

# where the other side of a grant is booked
_FROM = {CreditKind.PAID: AccountKind.CASH, CreditKind.PROMO: AccountKind.PROMO}
_LIMIT = Decimal(10) ** 12


def grant_credit(
    actor: Actor,
    tenant: Tenant,
    *,
    amount: Decimal,
    kind: str,
    key: str,
    expires_at: datetime | None = None,
    starts_at: datetime | None = None,
    priority: int = 50,
    meters: Sequence[str] = (),
    note: str = "",
) -> CreditGrant:
    """Give a tenant credit that was paid for or is a present. The same key again returns the first."""
    require(actor, "invoices.finalize")
    currency = accounts.currency_of(tenant)
    _check(amount, kind, meters, currency)
    with transaction.atomic():
        accounts.lock(tenant)
        now = clock.now()
        start = starts_at or now
        if expires_at is not None and (expires_at <= start or expires_at <= now):
            raise Invalid.at("/expires_at", "past", _("Credit expires after it begins, and in the future."))
        if known := _known(tenant, key, amount, kind):
            return known
        found = book(
            tenant,
            amount=amount,
            currency=currency,
            kind=CreditKind(kind),
            key=key,
            now=now,
            starts_at=start,
            expires_at=expires_at,
            priority=priority,
            meters=meters,
            note=note,
        )
        ledger.post(
            tenant,
            key=f"credit:{found.public_id}",
            currency=currency,
            amounts={_FROM[CreditKind(kind)]: amount, AccountKind.CREDIT: -amount},
        )
        audit.record(actor, "credit.granted", found, amount=str(amount), kind=kind, note=note)
    return found


def book(
    tenant: Tenant,
    *,
    amount: Decimal,
    currency: str,
    kind: CreditKind,
    key: str,
    now: datetime,
    note: str,
    starts_at: datetime | None = None,
    expires_at: datetime | None = None,
    priority: int = 50,
    meters: Sequence[str] = (),
) -> CreditGrant:
    """Write a lot down; the caller holds the account and books the ledger."""
    return CreditGrant.objects.create(
        tenant=tenant,
        kind=kind,
        currency=currency,
        amount=amount,
        remaining=amount,
        priority=priority,
        # what was paid, or is given back, may pay for everything the next invoice holds
        starts_at=starts_at or now,
        expires_at=expires_at,
        meters=sorted(set(meters)),
        note=note[:200],
        key=key,
        created_at=now,
    )


def lots_of(tenant: Tenant, currency: str) -> list[Lot]:
    """Credit that is not used up, as the burning code knows it; expired lots too: they pay for what was before."""
    grants = CreditGrant.objects.filter(tenant=tenant, currency=currency, remaining__gt=0)
    return [_lot(grant) for grant in grants]


def edges_of(tenant: Tenant, start: datetime, end: datetime) -> list[datetime]:
    """When lots begin or expire inside (start, end): usage is cut there, so that each piece may burn or not."""
    grants = CreditGrant.objects.filter(tenant=tenant, remaining__gt=0)
    within = Q(starts_at__gt=start, starts_at__lt=end) | Q(expires_at__gt=start, expires_at__lt=end)
    pairs = grants.filter(within).values_list("starts_at", "expires_at")
    return [edge for pair in pairs for edge in pair if edge is not None and start < edge < end]


def take(invoice: Invoice, burnt: Mapping[int, Decimal]) -> None:
    """Take what an invoice burns from the lots. In its transaction, with the account locked."""
    for grant_id, amount in sorted(burnt.items()):
        CreditUse.objects.create(grant_id=grant_id, invoice=invoice, amount=amount)
        # the check constraint refuses what is not there
        CreditGrant.objects.filter(pk=grant_id).update(remaining=F("remaining") - amount)


def give_back(invoice: Invoice) -> Decimal:
    """Return what a voided invoice took to the same lots, with their own expiry; returns the sum."""
    sums = CreditUse.objects.filter(invoice=invoice).order_by("grant_id").values("grant_id")
    returned = money.ZERO
    for row in sums.annotate(sum=Sum("amount")):
        if row["sum"]:
            CreditUse.objects.create(grant_id=row["grant_id"], invoice=invoice, amount=-row["sum"])
            CreditGrant.objects.filter(pk=row["grant_id"]).update(remaining=F("remaining") + row["sum"])
            returned = money.EXACT.add(returned, row["sum"])
    return returned


def break_rest(grant: CreditGrant, *, keep: Decimal, now: datetime) -> Decimal:
    """Book what an expired lot will not be needed for as breakage; returns how much. With the account locked."""
    lost = grant.remaining - keep
    if lost <= 0:
        return money.ZERO
    ledger.post(
        grant.tenant,
        key=f"breakage:{grant.public_id}:{grant.broken + lost}",
        currency=grant.currency,
        amounts={AccountKind.CREDIT: lost, AccountKind.BREAKAGE: -lost},
    )
    CreditGrant.objects.filter(pk=grant.pk).update(
        remaining=F("remaining") - lost, broken=F("broken") + lost, broken_at=now
    )
    return lost


def balance(tenant: Tenant, *, now: datetime | None = None) -> Decimal:
    """Credit that pays for usage of this instant, before what is not invoiced yet."""
    return _sum(_active(tenant, now or clock.now()))


def accrued(tenant: Tenant) -> Decimal:
    """What usage that is not invoiced yet costs with tax, unrounded: days less lines, by price."""
    account = accounts.of(tenant)
    days = UsageDay.objects.filter(tenant=tenant, price__currency=account.currency).order_by()
    used = {row["price_id"]: row["sum"] for row in days.values("price_id").annotate(sum=Sum("quantity"))}
    holding = Invoice.objects.filter(tenant=tenant).holding()
    lines = InvoiceLine.objects.filter(invoice__in=holding).exclude(kind=LineKind.COMMITMENT).order_by()
    billed = {row["price_id"]: row["sum"] for row in lines.values("price_id").annotate(sum=Sum("quantity"))}
    amounts = []
    categories = dict(Meter.objects.values_list("key", "tax_category"))
    for version in PriceVersion.objects.filter(pk__in=used):
        price = version.value
        before = billed.get(version.pk, money.ZERO)
        if used[version.pk] == before:
            continue
        if price.linear:
            cost = price.amount(used[version.pk] - before)
        else:
            cost = reports.stepped_cost(days.filter(price=version)) - _billed_of(lines, version.pk)
        amounts.append(with_tax(account, cost, categories[version.meter_id]))
    return money.total(amounts)


def with_tax(account: accounts.BillingAccount, amount: Decimal, category: str = "standard") -> Decimal:
    """An amount with the tax of this instant, unrounded."""
    rate = accounts.tax_rate(account, category, clock.now())
    return amount if rate is None else money.EXACT.add(amount, money.percent_of(amount, rate.percent))


def spendable(tenant: Tenant, *, meters: Iterable[str] = ()) -> Decimal:
    """Credit that is neither used nor needed for what was used; holds are not counted here.

    With meters, lots that pay only for other meters do not count.
    """
    now = clock.now()
    wanted = set(meters)
    active = [
        grant
        for grant in _active(tenant, now)
        if not grant.meters or not wanted or wanted & set(grant.meters)
    ]
    currency = accounts.currency_of(tenant)
    everything = money.total([lot.remaining for lot in lots_of(tenant, currency)])
    left = money.EXACT.subtract(everything, accrued(tenant))
    return min(money.total([grant.remaining for grant in active]), left)


def readable_by(actor: Actor, tenant: Tenant) -> QuerySet[CreditGrant]:
    """The lots of a tenant this actor may see."""
    if not actor.may("platform.reports"):
        require(actor, "invoices.view")
        return CreditGrant.objects.visible_to(actor).filter(tenant=tenant)  # type: ignore[no-any-return]
    return CreditGrant.objects.filter(tenant=tenant)


def _active(tenant: Tenant, now: datetime) -> QuerySet[CreditGrant]:
    alive = Q(expires_at=None) | Q(expires_at__gt=now)
    currency = accounts.currency_of(tenant)
    return CreditGrant.objects.filter(
        alive, tenant=tenant, currency=currency, remaining__gt=0, starts_at__lte=now
    )


def _sum(grants: QuerySet[CreditGrant]) -> Decimal:
    return grants.aggregate(sum=Sum("remaining"))["sum"] or money.ZERO


def _billed_of(lines: QuerySet[InvoiceLine], price_id: int) -> Decimal:
    return lines.filter(price=price_id).aggregate(sum=Sum("exact"))["sum"] or money.ZERO


def _known(tenant: Tenant, key: str, amount: Decimal, kind: str) -> CreditGrant | None:
    found = CreditGrant.objects.filter(tenant=tenant, key=key).first()
    if found is not None and (found.amount != amount or found.kind != kind):
        raise Conflict(_("This key was used for other credit. Use a key of its own for each grant."))
    return found


def _check(amount: Decimal, kind: str, meters: Sequence[str], currency: str) -> None:
    if kind not in _FROM:
        raise Invalid.at("/kind", "unknown", _("Credit is paid or promo."))
    if not amount.is_finite() or not 0 < amount < _LIMIT:
        raise Invalid.at("/amount", "invalid", _("Credit is more than zero."))
    if amount != money.round_line(amount, currency):
        text = _("Too many decimals for %(currency)s.") % {"currency": currency}
        raise Invalid.at("/amount", "too_fine", text)
    known = set(Meter.objects.values_list("key", flat=True))
    if unknown := sorted(set(meters) - known):
        text = _("There is no meter %(meter)s.") % {"meter": unknown[0]}
        raise Invalid.at("/meters", "unknown", text)


def _lot(grant: CreditGrant) -> Lot:
    return Lot(
        id=grant.pk,
        remaining=grant.remaining,
        priority=grant.priority,
        starts_at=grant.starts_at,
        expires_at=grant.expires_at,
        is_promo=grant.kind == CreditKind.PROMO,
        created_at=grant.created_at,
        meters=frozenset(grant.meters),
    )
