"""Which usage the next invoice of a tenant covers.

An invoice covers what was stored up to its `through_id` and happened before its `period_end`, less what
earlier invoices cover. Both bounds grow from invoice to invoice, so the last one alone says what is unbilled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from django.db.models import BooleanField, Case, Max, Min, Q, QuerySet, Sum, Value, When

from billing import rating
from billing.models import Invoice, PriceVersion, UsageEvent
from billing.months import Calendar, Month
from tenants.models import Tenant

_BEFORE_ALL = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What the next invoice of a month would cover, and what stands in its way."""

    period_start: datetime
    period_end: datetime
    through_id: int
    earlier: Month | None  # a month before with unbilled usage: its invoice comes first
    usage: list[rating.Usage]
    currencies: frozenset[str]
    events: QuerySet[UsageEvent]
    billed_to: datetime | None


def last_invoice(tenant: Tenant) -> Invoice | None:
    """The invoice that ends last, of those that hold."""
    return Invoice.objects.filter(tenant=tenant).holding().order_by("-period_end").first()


def covered_by(
    tenant_id: int, *, through_id: int, period_end: datetime, after: Invoice | None
) -> QuerySet[UsageEvent]:
    """Events within the bounds that `after`, the invoice before, does not cover."""
    events = UsageEvent.objects.filter(tenant=tenant_id, id__lte=through_id, event_time__lt=period_end)
    if after is None:
        return events
    return events.exclude(id__lte=after.through_id, event_time__lt=after.period_end)


def window(
    tenant: Tenant, month: Month, *, period_end: datetime, calendar: Calendar, last: Invoice | None
) -> Window:
    """The usage the invoice of a month covers if it ended at `period_end`; `last` is the invoice before it."""
    newest = UsageEvent.objects.filter(tenant=tenant).aggregate(id=Max("id"))["id"] or 0
    through_id = max(newest, last.through_id if last else 0)
    events = covered_by(tenant.pk, through_id=through_id, period_end=period_end, after=last)
    billed_to = last.period_end if last else None
    month_start = calendar.start(month)
    start = max(month_start, billed_to) if billed_to else month_start
    on_time = events.filter(event_time__gte=billed_to) if billed_to else events
    first = on_time.aggregate(first=Min("event_time"))["first"]
    earlier = calendar.month_of(first) if first is not None and first < month_start else None
    if earlier is not None:
        # late usage belongs to the invoice that comes first; leave it, and older months, to that one
        events = events.filter(event_time__gte=start)
    usage = grouped(events, billed_to=billed_to, calendar=calendar)
    return Window(
        period_start=start,
        period_end=period_end,
        through_id=through_id,
        earlier=earlier,
        usage=usage,
        currencies=frozenset(one.price.currency for one in usage),
        events=events,
        billed_to=billed_to,
    )


def grouped(
    events: QuerySet[UsageEvent], *, billed_to: datetime | None, calendar: Calendar
) -> list[rating.Usage]:
    """Events summed by price and subject; what happened before `billed_to` is late.

    Of a price that is not linear a month is one whole: its usage is late once the month's end is billed.
    """
    is_late = Q(event_time__lt=billed_to or _BEFORE_ALL)
    late = Case(When(is_late, then=True), default=False, output_field=BooleanField())
    rows = list(_sums(events.annotate(late=late)))
    used = {row["price_id"] for row in rows}
    prices = {version.pk: version.value for version in PriceVersion.objects.filter(pk__in=used)}
    found = [_usage(row, prices) for row in rows if prices[row["price_id"]].linear]
    stepped = [pk for pk, price in prices.items() if not price.linear]
    if not stepped:
        return found
    events = events.filter(price__in=stepped)
    for start, end in months_of(events, calendar):
        within = events.filter(event_time__gte=start, event_time__lt=end)
        is_over = Value(billed_to is not None and end <= billed_to, output_field=BooleanField())
        month = str(calendar.month_of(start))
        found += [_usage(row, prices, month) for row in _sums(within.annotate(late=is_over))]
    return found


def months_of(events: QuerySet[UsageEvent], calendar: Calendar) -> list[tuple[datetime, datetime]]:
    """The months of a calendar these events lie in, as [start, end)."""
    bounds = events.aggregate(first=Min("event_time"), last=Max("event_time"))
    if bounds["first"] is None:
        return []
    start = calendar.start(calendar.month_of(bounds["first"]))
    end = calendar.end(calendar.month_of(bounds["last"]))
    return rating.split(start, end, calendar.edges(start, end))


def stretches(events: QuerySet[UsageEvent], moments: Sequence[datetime]) -> list[QuerySet[UsageEvent]]:
    """Events divided at these moments; an event at a moment belongs to the later stretch."""
    bounds = events.aggregate(first=Min("event_time"), last=Max("event_time"))
    if bounds["first"] is None:
        return []
    inside = [moment for moment in moments if bounds["first"] < moment <= bounds["last"]]
    edges = [None, *inside, None]
    found = []
    for start, end in pairwise(edges):
        within = events if start is None else events.filter(event_time__gte=start)
        found.append(within if end is None else within.filter(event_time__lt=end))
    return found


def _sums(events: QuerySet[UsageEvent]) -> QuerySet[UsageEvent, dict[str, Any]]:
    return (
        events.order_by()
        .values("price_id", "subject", "late")  # type: ignore[misc]  # annotated by the caller
        .annotate(
            sum=Sum("quantity"), first=Min("event_time"), end=Max("ended_at"), title=Max("subject_title")
        )
    )


def _usage(row: dict[str, Any], prices: dict[int, rating.Price], month: str = "") -> rating.Usage:
    return rating.Usage(
        price=prices[row["price_id"]],
        quantity=row["sum"],
        started_at=row["first"],
        ended_at=row["end"],
        subject=row["subject"],
        subject_title=row["title"],
        late=row["late"],
        month=month,
    )
