"""The cost of one job, endpoint or dataset on one card: what it cost, what it costs now, and who held what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Sum
from django.utils.translation import gettext as _

from billing import clock, money, rating
from billing.models import Allocation, Meter, UsageDay, UsageEvent
from billing.services import prices, reports
from billing.services.extras import price_facts, price_values
from billing.services.scopes import Scope
from tenants.errors import Hidden
from tenants.models import Tenant

MOST_PLACES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """All usage of one meter and SKU."""

    title: str
    sku: str
    quantity: Decimal  # natural units
    unit: str
    cost: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One allocation: so many units held from one moment to another."""

    id: str
    title: str
    sku: str
    units: int
    started_at: datetime
    ended_at: datetime | None
    why: str
    billed_s: Decimal  # seconds written down so far, of each unit
    cost: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCard:
    """Everything a subject cost, in one currency, with what runs right now."""

    subject: str
    title: str
    tenant: Tenant
    user: str
    currency: str
    cost: Decimal
    per_hour_now: Decimal
    running: bool
    used: list[Used]
    places: list[Place]
    more_places: int
    place_count: int
    days: list[tuple[str, Decimal]]


def card(scope: Scope, subject: str) -> CostCard:
    """The card of a subject whose usage this scope may read, else Hidden."""
    latest = scope.rows(UsageDay.objects.filter(subject=subject)).order_by("-day", "-id").first()
    held = scope.rows(Allocation.objects.filter(subject=subject)).order_by("-started_at", "-id")
    newest = held.first()
    known = latest or newest
    if known is None:
        raise Hidden
    tenant = Tenant.objects.get(pk=known.tenant_id)
    rows = UsageDay.objects.filter(tenant=tenant, subject=subject)
    held = held.filter(tenant=tenant).select_related("meter", "tenant")
    priced = reports.priced(rows, "day", currency=scope.currency)
    facts = price_facts({row["price_id"] for row, _cost in priced})
    titles = dict(Meter.objects.values_list("key", "title"))
    sums: dict[tuple[str, str, str], tuple[Decimal, Decimal]] = {}
    days: dict[str, Decimal] = {}
    for row, cost in priced:
        fact = facts[row["price_id"]]
        key = (fact["meter"], fact["sku"], fact["unit"])
        quantity, amount = sums.get(key, (money.ZERO, money.ZERO))
        natural = money.EXACT.divide(row["sum"], fact["unit_size"])
        sums[key] = (money.EXACT.add(quantity, natural), money.EXACT.add(amount, cost))
        day = row["day"].isoformat()
        days[day] = money.EXACT.add(days.get(day, money.ZERO), cost)
    now = clock.now()
    running = list(held.filter(ended_at=None))
    shown, count = list(held[:MOST_PLACES]), held.count()
    users = rows.exclude(user_label="").values_list("user_label", flat=True)
    return CostCard(
        subject=subject,
        title=known.subject_title,
        tenant=tenant,
        user=users.first() or (newest.user_label if newest else ""),
        currency=scope.currency,
        cost=money.total([*(cost for _row, cost in priced), reports.unsettled(held.filter(ended_at=None))]),
        per_hour_now=money.total([per_hour(one, scope.currency, now) for one in running]),
        running=bool(running),
        used=[
            Used(title=_(titles[meter]), sku=sku, quantity=quantity, unit=unit, cost=cost)
            for (meter, sku, unit), (quantity, cost) in sorted(sums.items())
        ],
        places=_places(tenant, subject, shown),
        more_places=count - len(shown),
        place_count=count,
        days=sorted(days.items()),
    )


def per_hour(held: Allocation, currency: str, now: datetime) -> Decimal:
    """What an allocation costs an hour at today's price; nothing in another currency."""
    known = prices.between(held.meter_id, held.sku, now, now, tenant=held.tenant)
    price = rating.price_at(known, now)
    return price.amount(Decimal(3600) * held.units) if price and price.currency == currency else money.ZERO


def _places(tenant: Tenant, subject: str, held: list[Allocation]) -> list[Place]:
    if not held:
        return []
    # bounded by time, so that the index on it is used: a tenant may have millions of events
    events = UsageEvent.objects.filter(
        tenant=tenant,
        subject=subject,
        source="alloc",
        event_time__gte=min(one.started_at for one in held),
        event_time__lte=max(one.settled_through for one in held),
    )
    sums = list(events.order_by().values("dims__allocation", "price_id").annotate(sum=Sum("quantity")))
    known = price_values({row["price_id"] for row in sums})
    costs: dict[str, list[Decimal]] = {}
    for row in sums:
        costs.setdefault(row["dims__allocation"], []).append(known[row["price_id"]].amount(row["sum"]))
    return [
        Place(
            id=one.public_id,
            title=_(one.meter.title),
            sku=one.sku,
            units=one.units,
            started_at=one.started_at,
            ended_at=one.ended_at,
            why=one.end_reason,
            billed_s=rating.seconds(one.started_at, one.settled_through),
            cost=money.total(costs.get(one.public_id, [])),
        )
        for one in held
    ]
