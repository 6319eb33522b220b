"""Reads: what things cost. Sums come from the day rows; what runs right now is added where it says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Max, Min, QuerySet, Sum

from billing import clock, money, rating
from billing.models import Allocation, PriceVersion, UsageDay, UsageHour
from billing.months import Month
from billing.services import accounts, prices
from tenants.models import Tenant

ZERO = money.ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectCost:
    """What one subject used and cost."""

    subject: str
    title: str
    cost: Decimal
    used: list[tuple[str, Decimal, str]]  # (meter title, natural quantity, natural unit)


def cost_of(tenant: Tenant, subject: str) -> Decimal:
    """What a subject has cost up to this instant, unrounded."""
    rows = UsageDay.objects.filter(tenant=tenant, subject=subject)
    open_now = Allocation.objects.open().filter(tenant=tenant, subject=subject)
    return money.total([_cost(rows, accounts.currency_of(tenant)), unsettled(open_now)])


def month_to_date(tenant: Tenant, month: Month | None = None) -> Decimal:
    """What a tenant has spent in a month (None: this one) up to this instant, unrounded."""
    now = clock.now()
    current = Month.of(now)
    month = month or current
    rows = UsageDay.objects.filter(tenant=tenant).between(month.first, month.next.first)
    settled = _cost(rows, accounts.currency_of(tenant))
    if month != current:
        return settled
    open_now = Allocation.objects.open().filter(tenant=tenant)
    return money.total([settled, unsettled(open_now, since=month.start, now=now)])


def unsettled(
    allocations: QuerySet[Allocation], *, since: datetime | None = None, now: datetime | None = None
) -> Decimal:
    """The cost of what is held but not written down yet; a silent holder counts for three leases at most."""
    now = now or clock.now()
    amounts = []
    for held in allocations.select_related("tenant"):
        last = held.last_beat_at + timedelta(seconds=held.lease_s * 3)
        start, end = max(held.settled_through, since or held.settled_through), min(now, last)
        known = prices.between(held.meter_id, held.sku, start, end, tenant=held.tenant)
        for begin, finish in rating.split(start, end, rating.cuts(known, start, end)):
            if price := rating.price_at(known, begin):
                amounts.append(price.amount(rating.seconds(begin, finish) * held.units))
    return money.total(amounts)


def spend_by_day(tenant: Tenant, month: Month) -> dict[date, dict[str, Decimal]]:
    """{day: {meter: cost}} for every day of the month."""
    found: dict[date, dict[str, Decimal]] = {day: {} for day in month.days}
    rows = UsageDay.objects.filter(tenant=tenant).between(month.first, month.next.first)
    for row, cost in priced(rows, "day", "price__meter"):
        day = found[row["day"]]
        day[row["price__meter"]] = money.EXACT.add(day.get(row["price__meter"], money.ZERO), cost)
    return found


def spend_by_subject(tenant: Tenant, month: Month) -> list[SubjectCost]:
    """What each subject used and cost in a month, the dearest first."""
    rows = UsageDay.objects.filter(tenant=tenant).between(month.first, month.next.first)
    found: dict[str, dict[str, Any]] = {}
    fields = ("subject", "price__meter__title", "price__unit", "price__unit_size")
    for row, cost in priced(rows, *fields):
        one = found.setdefault(row["subject"], {"cost": [], "used": {}})
        one["cost"].append(cost)
        kind = (row["price__meter__title"], row["price__unit"])
        amount = money.EXACT.divide(row["sum"], row["price__unit_size"])
        one["used"][kind] = money.EXACT.add(one["used"].get(kind, money.ZERO), amount)
    latest = rows.order_by("subject", "-day", "-id").distinct("subject")
    titles = dict(latest.values_list("subject", "subject_title"))
    costs = [
        SubjectCost(
            subject=subject,
            title=titles[subject],
            cost=money.total(one["cost"]),
            used=[(title, amount, unit) for (title, unit), amount in sorted(one["used"].items())],
        )
        for subject, one in found.items()
    ]
    return sorted(costs, key=lambda one: (-one.cost, one.subject))


def usage_rows(tenant: Tenant, month: Month) -> list[dict[str, Any]]:
    """Every priced sum of a month by day, subject and price: the finest export."""
    rows = UsageDay.objects.filter(tenant=tenant).between(month.first, month.next.first)
    fields = (
        "day", "subject", "subject_title", "user_label", "price__meter", "price__sku", "price__meter__unit",
        "price__unit", "price__unit_size", "price__unit_price", "price__currency",
    )  # fmt: skip
    found = [{**row, "cost": cost} for row, cost in priced(rows, *fields)]
    return sorted(found, key=lambda row: (row["day"], row["subject"], row["price__meter"], row["price_id"]))


def _cost(rows: QuerySet[UsageDay], currency: str) -> Decimal:
    return money.total([cost for _row, cost in priced(rows, currency=currency)])


def cost_of_hours(rows: QuerySet[UsageHour], currency: str) -> Decimal:
    """What hours of one currency cost; of prices with tiers or bounds, as if nothing else were used."""
    sums = rows.filter(price__currency=currency).order_by().values("price_id").annotate(sum=Sum("quantity"))
    used = {row["price_id"]: row["sum"] for row in sums}
    versions = PriceVersion.objects.filter(pk__in=used)
    return money.total([version.value.amount(used[version.pk]) for version in versions])


def stepped_cost(rows: QuerySet[UsageDay]) -> Decimal:
    """What days of prices with tiers or bounds cost, each month as a whole."""
    versions = PriceVersion.objects.filter(pk__in=rows.order_by().values("price_id").distinct())
    known = {version.pk: version.value for version in versions}
    return money.total([cost for _row, cost in _stepped(rows, (), known)])


def priced(
    rows: QuerySet[UsageDay], *by: str, currency: str | None = None
) -> list[tuple[dict[str, Any], Decimal]]:
    """Rows of one currency (None: the installation's) grouped by fields and price, each with its exact cost.

    A price with tiers or bounds knows only what a whole month costs: a part has its share of that by quantity.
    """
    rows = rows.filter(price__currency=currency or settings.CURRENCY).order_by()
    sums = list(rows.values("price_id", *by).annotate(sum=Sum("quantity")))
    versions = PriceVersion.objects.filter(pk__in={row["price_id"] for row in sums})
    known = {version.pk: version.value for version in versions}
    stepped = {pk: price for pk, price in known.items() if not price.linear}
    terms = {pk: (price.unit_price, price.unit_size) for pk, price in known.items() if price.linear}
    found = []
    # a report of everybody has tens of thousands of these: what does not change is looked up before
    multiply, divide = money.EXACT.multiply, money.EXACT.divide
    for row in sums:
        if row["price_id"] in terms:
            unit_price, unit_size = terms[row["price_id"]]
            found.append((row, divide(multiply(row["sum"], unit_price), unit_size)))
    return found + _stepped(rows.filter(price__in=stepped), by, stepped) if stepped else found


def _stepped(
    rows: QuerySet[UsageDay], by: tuple[str, ...], known: dict[int, rating.Price]
) -> list[tuple[dict[str, Any], Decimal]]:
    """Grouped rows of prices that are not linear: each its share of what its tenant's month costs."""
    days = rows.aggregate(first=Min("day"), last=Max("day"))
    if days["first"] is None:
        return []
    wholes: dict[tuple[int, Month, int], Decimal] = {}
    tenants = set(rows.values_list("tenant_id", flat=True))
    everything = UsageDay.objects.filter(
        tenant__in=tenants,
        price__in=known,
        day__gte=Month.of(days["first"]).first,
        day__lt=Month.of(days["last"]).next.first,
    )
    for one in everything.order_by().values("tenant_id", "day", "price_id").annotate(sum=Sum("quantity")):
        key = (one["tenant_id"], Month.of(one["day"]), one["price_id"])
        wholes[key] = money.EXACT.add(wholes.get(key, money.ZERO), one["sum"])
    groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[Decimal]]] = {}
    fields = tuple(dict.fromkeys((*by, "tenant_id", "day")))
    for row in rows.values("price_id", *fields).annotate(sum=Sum("quantity")):
        whole = wholes[row["tenant_id"], Month.of(row["day"]), row["price_id"]]
        price = known[row["price_id"]]
        cost = money.price_of(row["sum"], unit_price=price.amount(whole), unit_size=whole) if whole else ZERO
        key = (row["price_id"], *(row[name] for name in by))
        told, costs = groups.setdefault(
            key, ({"price_id": row["price_id"], **{name: row[name] for name in by}, "sum": ZERO}, [])
        )
        told["sum"] = money.EXACT.add(told["sum"], row["sum"])
        costs.append(cost)
    return [(told, money.total(costs)) for told, costs in groups.values()]
