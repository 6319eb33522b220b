"""Reads: what things cost. Sums come from the day rows; what runs right now is added where it says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import QuerySet, Sum

from billing import clock, money, rating
from billing.models import Allocation, PriceVersion, UsageDay
from billing.months import Month
from billing.services import prices
from tenants.models import Tenant


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
    return money.total([_cost(rows), unsettled(open_now)])


def month_to_date(tenant: Tenant, month: Month | None = None) -> Decimal:
    """What a tenant has spent in a month (None: this one) up to this instant, unrounded."""
    now = clock.now()
    current = Month.of(now)
    month = month or current
    settled = _cost(UsageDay.objects.filter(tenant=tenant).between(month.first, month.next.first))
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
    for held in allocations:
        last = held.last_beat_at + timedelta(seconds=held.lease_s * 3)
        start, end = max(held.settled_through, since or held.settled_through), min(now, last)
        known = prices.between(held.meter_id, held.sku, start, end)
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
    titles = dict(rows.order_by("day", "id").values_list("subject", "subject_title"))  # the latest wins
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


def _cost(rows: QuerySet[UsageDay]) -> Decimal:
    return money.total([cost for _row, cost in priced(rows)])


def priced(rows: QuerySet[UsageDay], *by: str) -> list[tuple[dict[str, Any], Decimal]]:
    """Rows grouped by fields and price, each with its exact cost."""
    rows = rows.filter(price__currency=settings.CURRENCY).order_by()
    sums = list(rows.values("price_id", *by).annotate(sum=Sum("quantity")))
    versions = PriceVersion.objects.filter(pk__in={row["price_id"] for row in sums})
    known = {version.pk: version.value for version in versions}
    return [(row, known[row["price_id"]].amount(row["sum"])) for row in sums]
