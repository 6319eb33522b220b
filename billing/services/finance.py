"""Finance: what was invoiced, what is owed since when, tax by rate, credit, revenue by stream, and the margin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db.models import F, Q, Sum

from billing import clock, money
from billing.models import (
    CostRate,
    CreditGrant,
    CreditKind,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    CreditUse,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    Payment,
)
from billing.services.extras import midnight
from billing.services.scopes import Scope
from billing.states import InvoiceStatus, PaymentStatus
from billing.streams import STREAMS, stream_of

# days past due -> the bucket an open invoice is in; the first that holds it
AGES = ((0, "not_due"), (30, "d30"), (60, "d60"), (90, "d90"))
OLDEST = "older"
BUCKETS = (*(name for _days, name in AGES), OLDEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A frozen invoice and what is left to pay of it now."""

    invoice: Invoice
    left: Decimal
    overdue_days: int

    @property
    def bucket(self) -> str:
        return next((name for days, name in AGES if self.overdue_days <= days), OLDEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """What became of credit in a window: the opening, and every way in and out, sum to the closing."""

    opening: Decimal
    bought: Decimal
    given: Decimal
    returned: Decimal  # by credit notes
    used: Decimal
    expired: Decimal
    closing: Decimal


@dataclass(slots=True, kw_only=True)
class Stream:
    """Revenue of one stream, without tax, beside what it cost the house; None: some cost rate is missing."""

    key: str
    revenue: Decimal = money.ZERO
    notes: Decimal = money.ZERO
    cost: Decimal | None = money.ZERO
    unknown: set[str] = field(default_factory=set)  # meter/SKU without a cost rate

    @property
    def title(self) -> Any:
        return STREAMS[self.key]

    @property
    def net(self) -> Decimal:
        return money.EXACT.subtract(self.revenue, self.notes)

    @property
    def margin(self) -> Decimal | None:
        return None if self.cost is None else money.EXACT.subtract(self.net, self.cost)

    @property
    def margin_share(self) -> Decimal | None:
        return None if self.margin is None or not self.net else money.EXACT.divide(self.margin, self.net)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tax:
    """Tax of one rate in a window, credit notes taken off."""

    title: str
    percent: Decimal
    taxable: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finance:
    """Invoices and notes issued in [start, end), in one currency; what is owed is as of now."""

    start: date
    end: date
    currency: str
    invoices: list[Owed]
    notes: list[CreditNote]
    aging: dict[str, tuple[int, Decimal]]  # bucket -> how many, how much
    taxes: list[Tax]
    credit: Credit
    streams: list[Stream]
    elsewhere: list[str]  # other currencies with documents

    @property
    def net(self) -> Decimal:
        return money.total([one.invoice.net for one in self.invoices])

    @property
    def owed(self) -> Decimal:
        return money.total([amount for _count, amount in self.aging.values()])

    @property
    def overdue(self) -> Decimal:
        return money.EXACT.subtract(self.owed, self.aging["not_due"][1])

    @property
    def revenue(self) -> Decimal:
        return money.total([one.net for one in self.streams])

    @property
    def margin(self) -> Decimal | None:
        """None where some cost is not known: an incomplete cost would look like profit."""
        margins = [one.margin for one in self.streams]
        return None if None in margins else money.total([one for one in margins if one is not None])


def finance(scope: Scope, start: date, end: date) -> Finance:
    """Everything above, for the documents of a scope issued in [start, end)."""
    now, window = clock.now(), {"gte": midnight(start), "lt": midnight(end)}
    frozen = scope.rows(Invoice.objects.holding())
    issued = frozen.filter(
        currency=scope.currency, finalized_at__gte=window["gte"], finalized_at__lt=window["lt"]
    )
    notes = scope.rows(CreditNote.objects.all()).filter(
        currency=scope.currency, issued_at__gte=window["gte"], issued_at__lt=window["lt"]
    )
    elsewhere = frozen.exclude(currency=scope.currency).order_by().values_list("currency", flat=True)
    return Finance(
        start=start,
        end=end,
        currency=scope.currency,
        invoices=_owed(issued.select_related("tenant").order_by("-finalized_at", "-id"), now),
        notes=list(notes.select_related("invoice", "tenant")),
        aging=aging(scope, now),
        taxes=_taxes(issued, notes),
        credit=_credit(scope, midnight(start), midnight(end)),
        streams=_streams(issued, notes, scope.currency),
        elsewhere=sorted(elsewhere.distinct()),
    )


def unpaid(scope: Scope, now: datetime) -> list[Owed]:
    """Invoices with something left to pay, the longest overdue first."""
    rows = scope.rows(Invoice.objects.filter(status=InvoiceStatus.FINALIZED, currency=scope.currency))
    found = [
        one for one in _owed(rows.select_related("tenant").order_by("due_at", "id"), now) if one.left > 0
    ]
    return found


def aging(scope: Scope, now: datetime) -> dict[str, tuple[int, Decimal]]:
    """What is owed by how long it is overdue: every bucket, empty ones too."""
    found = dict.fromkeys(BUCKETS, (0, money.ZERO))
    for one in unpaid(scope, now):
        count, amount = found[one.bucket]
        found[one.bucket] = (count + 1, money.EXACT.add(amount, one.left))
    return found


def _owed(invoices: Any, now: datetime) -> list[Owed]:
    """Each invoice with what is left of it; two queries for all of them."""
    rows = list(invoices)
    ids = [one.pk for one in rows]
    paid = Payment.objects.filter(invoice__in=ids, status=PaymentStatus.SUCCEEDED).order_by()
    received = dict(paid.values_list("invoice_id").annotate(sum=Sum(F("amount") - F("to_credit"))))
    notes = CreditNote.objects.filter(invoice__in=ids).order_by()
    noted = dict(notes.values_list("invoice_id").annotate(sum=Sum("off_receivable")))
    found = []
    for one in rows:
        less = money.total([received.get(one.pk, money.ZERO), noted.get(one.pk, money.ZERO)])
        due = one.due_at or one.finalized_at or now
        found.append(
            Owed(invoice=one, left=money.EXACT.subtract(one.due, less), overdue_days=_days_over(due, now))
        )
    return found


def _days_over(due: datetime, now: datetime) -> int:
    """Begun days since an invoice was due; 0 before."""
    return max(0, -((due - now).days)) if now > due else 0


def _taxes(invoices: Any, notes: Any) -> list[Tax]:
    found: dict[tuple[str, Decimal], list[Decimal]] = {}
    for model, of, sign in (
        (InvoiceTax, {"invoice__in": invoices}, 1),
        (CreditNoteTax, {"note__in": notes}, -1),
    ):
        rows = model.objects.filter(**of).order_by().values("title", "percent")  # type: ignore[attr-defined]
        for row in rows.annotate(base=Sum("taxable"), tax=Sum("amount")):
            sums = found.setdefault((row["title"], row["percent"]), [money.ZERO, money.ZERO])
            sums[0], sums[1] = sums[0] + sign * row["base"], sums[1] + sign * row["tax"]
    return [
        Tax(title=title, percent=percent, taxable=base, amount=tax)
        for (title, percent), (base, tax) in sorted(found.items())
    ]


def _credit(scope: Scope, start: datetime, end: datetime) -> Credit:
    grants = scope.rows(CreditGrant.objects.filter(currency=scope.currency))
    uses = CreditUse.objects.filter(grant__in=grants)
    inside = Q(created_at__gte=start, created_at__lt=end)
    came = {kind: _sum(grants.filter(inside, kind=kind), "amount") for kind in CreditKind}
    used = _sum(uses.filter(inside), "amount")
    expired = _sum(grants.filter(broken_at__gte=start, broken_at__lt=end), "broken")
    opening = (
        _sum(grants.filter(created_at__lt=start), "amount")
        - _sum(uses.filter(created_at__lt=start), "amount")
        - _sum(grants.filter(broken_at__lt=start), "broken")
    )
    return Credit(
        opening=opening,
        bought=came[CreditKind.PAID],
        given=came[CreditKind.PROMO],
        returned=came[CreditKind.REFUND],
        used=used,
        expired=expired,
        closing=opening + money.total(list(came.values())) - used - expired,
    )


def _streams(invoices: Any, notes: Any, currency: str) -> list[Stream]:
    """Lines of the invoices by stream, less what notes took back, beside what their quantities cost the house."""
    found: dict[str, Stream] = {}
    rates = list(CostRate.objects.filter(currency=currency).select_related("meter"))
    lines = InvoiceLine.objects.filter(invoice__in=invoices)
    for line in lines.values("meter_id", "sku", "started_at", "quantity", "unit_size", "amount").iterator():
        one = found.setdefault(_stream(line["meter_id"]), Stream(key=_stream(line["meter_id"])))
        one.revenue = money.EXACT.add(one.revenue, line["amount"])
        if not line["meter_id"]:
            continue  # an agreed minimum: revenue that no usage stands behind
        rate = _rate(rates, line["meter_id"], line["sku"], line["started_at"])
        if rate is None:
            one.cost = None
            one.unknown.add(f"{line['meter_id']}/{line['sku']}")
        elif one.cost is not None:
            cost = money.price_of(
                line["quantity"], unit_price=rate.unit_cost, unit_size=rate.meter.natural_size
            )
            one.cost = money.EXACT.add(one.cost, cost)
    back = CreditNoteLine.objects.filter(note__in=notes).order_by()
    for row in back.values("line__meter_id").annotate(sum=Sum("amount")):
        one = found.setdefault(_stream(row["line__meter_id"]), Stream(key=_stream(row["line__meter_id"])))
        one.notes = money.EXACT.add(one.notes, row["sum"])
    return sorted(found.values(), key=lambda one: list(STREAMS).index(one.key))


def _stream(meter: str | None) -> str:
    return stream_of(meter or "")


def _rate(rates: Iterable[CostRate], meter: str, sku: str, at: datetime) -> CostRate | None:
    """The newest rate that began before a moment: a rate ends where the next one of its meter and SKU begins."""
    fitting = [
        one
        for one in rates
        if one.meter_id == meter
        and one.sku == sku
        and one.valid_from <= at
        and (one.valid_to is None or at < one.valid_to)
    ]
    return max(fitting, key=lambda one: one.valid_from, default=None)


def _sum(rows: Any, name: str) -> Decimal:
    found: Decimal | None = rows.aggregate(sum=Sum(name))["sum"]
    return found or money.ZERO
