"""The cost report of the whole installation: any stretch of days, grouped one way. For staff."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from billing import clock, money
from billing.models import UsageDay
from billing.months import Month
from billing.services import reports
from tenants.actor import Actor
from tenants.errors import Invalid
from tenants.permissions import require

LONGEST_DAYS = 800
MOST_SERIES = 5  # the rest of a chart is "Other"
MOST_BARS = 62  # longer stretches are drawn by month

# how to group -> (fields that name the group, fields of its label)
_FIELDS = {
    "day": ("day",),
    "tenant": ("tenant__public_id", "tenant__name"),
    "subject": ("subject", "subject_title", "tenant__name"),
    "meter": ("price__meter", "price__meter__title"),
    "user": ("user_label", "tenant__public_id", "tenant__name"),
}
GROUPS = tuple(_FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One group of a report."""

    key: str
    label: str
    tenant: str
    cost: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Costs of [start, end) in UTC days, exact, up to `complete_through`."""

    start: date
    end: date
    group: str
    currency: str
    rows: list[Row]
    total: Decimal
    chart: dict[str, Any]
    by_month: bool  # the bars are months
    complete_through: datetime


def report(actor: Actor, *, start: date, end: date, group: str, tenant: str = "", meter: str = "") -> Report:
    """What everybody's usage costs, as rows and as a chart of stacked bars."""
    require(actor, "platform.reports")
    if group not in _FIELDS:
        raise Invalid.at("/by", "unknown", _("Group by one of %(known)s.") % {"known": ", ".join(GROUPS)})
    if end <= start:
        raise Invalid.at("/to", "order", _("The end lies after the start; the last day itself is not part."))
    if (end - start).days > LONGEST_DAYS:
        raise Invalid.at("/to", "too_long", _("A report covers at most %(n)s days.") % {"n": LONGEST_DAYS})
    now = clock.now()
    rows = UsageDay.objects.between(start, end)
    if tenant:
        rows = rows.filter(tenant__public_id=tenant)
    if meter:
        rows = rows.filter(price__meter=meter)
    fields = tuple(dict.fromkeys(("day", "price__meter__title", *_FIELDS[group])))
    priced = reports.priced(rows, *fields)
    groups: dict[str, list[Decimal]] = {}
    named: dict[str, tuple[date, Row]] = {}
    for row, cost in priced:
        one = _name(group, row)
        groups.setdefault(one.key, []).append(cost)
        if one.key not in named or named[one.key][0] <= row["day"]:
            named[one.key] = (row["day"], one)  # a renamed subject goes by its latest name
    found = [
        Row(key=key, label=named[key][1].label, tenant=named[key][1].tenant, cost=money.total(costs))
        for key, costs in groups.items()
    ]
    found.sort(key=(lambda row: row.key) if group == "day" else (lambda row: (-row.cost, row.key)))
    return Report(
        start=start,
        end=end,
        group=group,
        currency=settings.CURRENCY,
        rows=found,
        total=money.total([row.cost for row in found]),
        chart=_chart(priced, found, group, start, end),
        by_month=(end - start).days > MOST_BARS,
        complete_through=now,
    )


def _name(group: str, row: dict[str, Any]) -> Row:
    tenant = row.get("tenant__name", "")
    if group == "day":
        key = label = row["day"].isoformat()
    elif group == "tenant":
        key, label = row["tenant__public_id"], tenant
    elif group == "subject":
        key, label = row["subject"], row["subject_title"]
    elif group == "meter":
        key, label = row["price__meter"], _(row["price__meter__title"])
    else:
        key, label = f"{row['tenant__public_id']} {row['user_label']}", row["user_label"] or _("nobody")
    return Row(key=key, label=label, tenant=tenant, cost=money.ZERO)


def _chart(
    priced: list[tuple[dict[str, Any], Decimal]], rows: list[Row], group: str, start: date, end: date
) -> dict[str, Any]:
    """Bars by day (by month where they would be too many), stacked by group; days are stacked by meter."""
    by_month = (end - start).days > MOST_BARS
    days = [start + timedelta(days=n) for n in range((end - start).days)]
    slots = list(dict.fromkeys(_slot(day, by_month) for day in days))
    labels = {row.key: row.label for row in rows}
    top = {row.key for row in rows[:MOST_SERIES]} if group != "day" else None
    series: dict[str, dict[str, Decimal]] = {}
    for row, cost in priced:
        if top is None:
            name = _(row["price__meter__title"])
        else:
            key = _name(group, row).key
            name = labels[key] if key in top else _("Other")
        values = series.setdefault(name, dict.fromkeys(slots, money.ZERO))
        slot = _slot(row["day"], by_month)
        values[slot] = money.EXACT.add(values[slot], cost)
    order = sorted(
        series, key=lambda name: (name == _("Other"), -money.total(list(series[name].values())), name)
    )
    return {
        "labels": [slot if by_month else slot[5:] for slot in slots],
        "series": [{"name": name, "values": [series[name][slot] for slot in slots]} for name in order],
        "unit": settings.CURRENCY,
    }


def _slot(day: date, by_month: bool) -> str:
    return str(Month.of(day)) if by_month else day.isoformat()
