"""Which usage the next invoice of a tenant covers.

An invoice covers what was stored up to its `through_id` and happened before its `period_end`, less what
earlier invoices cover. Both bounds grow from invoice to invoice, so the last one alone says what is unbilled.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import BooleanField, Case, Max, Min, Q, QuerySet, Sum, When

from billing import rating
from billing.models import Invoice, PriceVersion, UsageEvent
from billing.months import Month
from billing.states import InvoiceStatus
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


def last_invoice(tenant: Tenant) -> Invoice | None:
    """The invoice that ends last."""
    frozen = Invoice.objects.filter(tenant=tenant).exclude(status=InvoiceStatus.DRAFT)
    return frozen.order_by("-period_end").first()


def covered_by(
    tenant_id: int, *, through_id: int, period_end: datetime, after: Invoice | None
) -> QuerySet[UsageEvent]:
    """Events within the bounds that `after`, the invoice before, does not cover."""
    events = UsageEvent.objects.filter(tenant=tenant_id, id__lte=through_id, event_time__lt=period_end)
    if after is None:
        return events
    return events.exclude(id__lte=after.through_id, event_time__lt=after.period_end)


def window(tenant: Tenant, month: Month, *, period_end: datetime) -> Window:
    """The usage the invoice of a month covers if it ended at `period_end`."""
    last = last_invoice(tenant)
    newest = UsageEvent.objects.filter(tenant=tenant).aggregate(id=Max("id"))["id"] or 0
    through_id = max(newest, last.through_id if last else 0)
    events = covered_by(tenant.pk, through_id=through_id, period_end=period_end, after=last)
    billed_to = last.period_end if last else None
    start = max(month.start, billed_to) if billed_to else month.start
    on_time = events.filter(event_time__gte=billed_to) if billed_to else events
    first = on_time.aggregate(first=Min("event_time"))["first"]
    earlier = Month.of(first) if first is not None and first < month.start else None
    if earlier is not None:
        # late usage belongs to the invoice that comes first; leave it, and older months, to that one
        events = events.filter(event_time__gte=start)
    usage = grouped(events, billed_to=billed_to)
    return Window(
        period_start=start,
        period_end=period_end,
        through_id=through_id,
        earlier=earlier,
        usage=usage,
        currencies=frozenset(one.price.currency for one in usage),
    )


def grouped(events: QuerySet[UsageEvent], *, billed_to: datetime | None) -> list[rating.Usage]:
    """Events summed by price and subject; what happened before `billed_to` is late."""
    is_late = Q(event_time__lt=billed_to or _BEFORE_ALL)
    sums = (
        events.annotate(late=Case(When(is_late, then=True), default=False, output_field=BooleanField()))
        .order_by()
        .values("price_id", "subject", "late")
        .annotate(
            sum=Sum("quantity"), first=Min("event_time"), end=Max("ended_at"), title=Max("subject_title")
        )
    )
    rows = list(sums)
    prices = {
        price.pk: price.value
        for price in PriceVersion.objects.filter(pk__in={row["price_id"] for row in rows})
    }
    return [
        rating.Usage(
            price=prices[row["price_id"]],
            quantity=row["sum"],
            started_at=row["first"],
            ended_at=row["end"],
            subject=row["subject"],
            subject_title=row["title"],
            late=row["late"],
        )
        for row in rows
    ]
