"""What an invoice would say: lines, taxes and the credit that pays for it. Stores nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings

from billing import money, rating
from billing.burning import Lot, Payable, burn, moments
from billing.models import (
    BillingAccount,
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoicePart,
    InvoiceTax,
    LineKind,
    Meter,
)
from billing.months import Calendar, Month
from billing.services import accounts, credits, unbilled
from billing.states import InvoiceStatus
from tenants.models import Tenant

Key = tuple[int | None, bool, str]  # price, late, month
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An invoice with its lines, their parts and its taxes; a draft's rows are not stored."""

    invoice: Invoice
    lines: list[tuple[InvoiceLine, list[InvoicePart]]]
    taxes: list[InvoiceTax]
    burnt: dict[int, Decimal]  # lot of credit -> what it pays

    @property
    def exact(self) -> Decimal:
        """The sum of the lines before rounding."""
        return money.total([line.exact for line, _parts in self.lines])


def stored(invoice: Invoice) -> Document:
    """A frozen invoice as it was written."""
    lines = invoice.lines.prefetch_related("parts").select_related("invoice")
    return Document(
        invoice=invoice,
        lines=[(line, list(line.parts.all())) for line in lines],
        taxes=list(invoice.taxes.all()),
        burnt={},
    )


def compose(
    tenant: Tenant,
    account: BillingAccount,
    month: Month,
    window: unbilled.Window,
    *,
    lots: Sequence[Lot] | None = None,
    left: bool = False,
) -> Document:
    """The invoice of a window as it would be now. `left`: the tenant is closed, so no minimum is asked for.

    `lots` is the credit that may pay (None: what the tenant has).
    """
    usage = [one for one in window.usage if one.price.currency == account.currency]
    rated = rating.rate(usage, standing=_standing(tenant, usage))
    meters = {meter.key: meter for meter in Meter.objects.all()}
    all_late = bool(rated) and all(line.late for line in rated)
    invoice = Invoice(
        tenant=tenant,
        status=InvoiceStatus.DRAFT,
        kind=InvoiceKind.CORRECTION if left and all_late else InvoiceKind.USAGE,
        currency=account.currency,
        billing_month=str(month),
        period_start=window.period_start,
        period_end=window.period_end,
        through_id=window.through_id,
        seller_name=settings.SELLER_NAME,
        buyer_name=tenant.name,
        buyer_id=tenant.public_id,
        buyer_details=account.buyer_details,
        language=account.language,
    )
    lines = [_row(invoice, position, line, meters) for position, line in enumerate(rated, start=1)]
    if not left and (owed := _short_of_commitment(tenant, account, month, window, rated)):
        lines.append((_commitment(invoice, len(lines) + 1, account, owed), []))
    taxes = _taxes(invoice, account, [line for line, _parts in lines], meters)
    invoice.tax_total = money.total([tax.amount for tax in taxes])
    invoice.total = money.EXACT.add(money.total([line.amount for line, _parts in lines]), invoice.tax_total)
    burnt: dict[int, Decimal] = {}
    if invoice.total > 0:
        lots = credits.lots_of(tenant, account.currency) if lots is None else lots
        burnt = burn(_payables(tenant, account.calendar, invoice, lines, window, lots), lots) if lots else {}
        invoice.credit_total = money.total(list(burnt.values()))
    else:
        invoice.credit_total = invoice.total  # a sum below zero is not paid back, it becomes credit
    return Document(invoice=invoice, lines=lines, taxes=taxes, burnt=burnt)


def _row(
    invoice: Invoice, position: int, line: rating.Line, meters: dict[str, Meter]
) -> tuple[InvoiceLine, list[InvoicePart]]:
    row = InvoiceLine(
        invoice=invoice,
        position=position,
        kind=LineKind.TAKEN_BACK if line.corrects else LineKind.USAGE,
        late=line.late,
        month=line.month,
        corrects_id=line.corrects,
        meter_id=line.price.meter,
        title=meters[line.price.meter].title,
        sku=line.price.sku,
        price_id=line.price.id,
        unit=line.price.unit,
        unit_size=line.price.unit_size,
        unit_price=line.price.unit_price,
        started_at=line.started_at,
        ended_at=line.ended_at,
        quantity=line.quantity,
        exact=money.kept(line.exact),
        amount=line.amount,
    )
    parts = [
        InvoicePart(
            line=row,
            subject=part.subject,
            subject_title=part.subject_title,
            quantity=part.quantity,
            exact=part.exact,
        )
        for part in line.parts
    ]
    return row, parts


def _standing(tenant: Tenant, usage: Sequence[rating.Usage]) -> dict[tuple[int, str], rating.Billed]:
    """Frozen lines that more usage of the same month and price takes back."""
    keys = {(one.price.id, one.month) for one in usage if one.month}
    if not keys:
        return {}
    holding = Invoice.objects.filter(tenant=tenant).holding()
    lines = InvoiceLine.objects.filter(
        invoice__in=holding, kind=LineKind.USAGE, price__in={price for price, _month in keys}
    ).exclude(taken_back_by__invoice__in=holding)
    return {
        (line.price_id, line.month): rating.Billed(
            line_id=line.pk,
            started_at=line.started_at,
            ended_at=line.ended_at,
            quantity=line.quantity,
            exact=line.exact,
            amount=line.amount,
            parts=tuple(
                rating.Part(
                    subject=part.subject,
                    subject_title=part.subject_title,
                    quantity=part.quantity,
                    exact=part.exact,
                )
                for part in line.parts.all()
            ),
        )
        for line in lines.prefetch_related("parts")
        if line.price_id is not None and (line.price_id, line.month) in keys
    }


def _short_of_commitment(
    tenant: Tenant,
    account: BillingAccount,
    month: Month,
    window: unbilled.Window,
    rated: Sequence[rating.Line],
) -> Decimal:
    """What the month lacks of the agreed minimum; asked for by the invoice that reaches the month's end."""
    if not account.commitment or window.period_end < account.calendar.end(month):
        return money.ZERO
    before = InvoiceLine.objects.filter(
        invoice__in=Invoice.objects.filter(tenant=tenant, billing_month=str(month)).holding()
    )
    amounts = [*before.values_list("amount", flat=True), *(line.amount for line in rated if not line.late)]
    return max(account.commitment - money.total(amounts), money.ZERO)


def _commitment(invoice: Invoice, position: int, account: BillingAccount, owed: Decimal) -> InvoiceLine:
    return InvoiceLine(
        invoice=invoice,
        position=position,
        kind=LineKind.COMMITMENT,
        title="Up to the agreed minimum",
        sku="",
        unit="month",
        unit_size=Decimal(1),
        unit_price=account.commitment,
        started_at=invoice.period_start,
        ended_at=invoice.period_end,
        quantity=Decimal(1),
        exact=owed,
        amount=owed,
    )


def _taxes(
    invoice: Invoice, account: BillingAccount, lines: Sequence[InvoiceLine], meters: dict[str, Meter]
) -> list[InvoiceTax]:
    """Per rate: the sum of its lines, taxed and rounded once. Marks each line with its rate."""
    found: dict[tuple[str, Decimal], list[Decimal]] = {}
    at = invoice.period_end - _INSTANT
    rates: dict[str, Any] = {}
    for line in lines:
        category = meters[line.meter_id].tax_category if line.meter_id else "standard"
        if category not in rates:
            rates[category] = accounts.tax_rate(account, category, at)
        if rate := rates[category]:
            line.tax_percent = rate.percent
            found.setdefault((rate.title, rate.percent), []).append(line.amount)
    taxes = []
    for (title, percent), amounts in sorted(found.items()):
        taxable = money.total(amounts)
        amount = money.round_line(money.percent_of(taxable, percent), account.currency)
        taxes.append(
            InvoiceTax(invoice=invoice, title=title, percent=percent, taxable=taxable, amount=amount)
        )
    return taxes


def _payables(
    tenant: Tenant,
    calendar: Calendar,
    invoice: Invoice,
    lines: Sequence[tuple[InvoiceLine, list[InvoicePart]]],
    window: unbilled.Window,
    lots: Sequence[Lot],
) -> list[Payable]:
    """The invoice's sum in pieces by time and meter, so that credit pays only for what it may pay for."""
    owed: dict[Key, Decimal] = {}
    for line, _parts in lines:
        gross = money.EXACT.add(line.amount, money.percent_of(line.amount, line.tax_percent or money.ZERO))
        key = (line.price_id, line.late, line.month)
        owed[key] = money.EXACT.add(owed.get(key, money.ZERO), gross)
    cent = money.cent(invoice.currency)
    weights = [max(gross, money.ZERO) for gross in owed.values()]
    amounts = dict(zip(owed, money.split(invoice.total, weights, step=cent), strict=True))
    used: dict[Key, list[tuple[datetime, str, Decimal]]] = {}
    for events in unbilled.stretches(window.events, moments(lots)):
        for one in unbilled.grouped(events, billed_to=window.billed_to, calendar=calendar):
            pieces = used.setdefault((one.price.id, one.late, one.month), [])
            pieces.append((one.started_at, one.price.meter, one.quantity))
    found = []
    for key, amount in amounts.items():
        pieces = used.get(key) or [(invoice.period_end - _INSTANT, "", Decimal(1))]
        shares = money.split(amount, [quantity for _at, _meter, quantity in pieces], step=cent)
        found += [
            Payable(at=at, meter=meter, amount=share)
            for (at, meter, _quantity), share in zip(pieces, shares, strict=True)
        ]
    return found


def content_hash(made: Document) -> str:
    """SHA-256 of everything the invoice says."""
    invoice = made.invoice
    said: dict[str, Any] = {
        "number": invoice.number,
        "seller": invoice.seller_name,
        "buyer": [invoice.buyer_id, invoice.buyer_name],
        "currency": invoice.currency,
        "period": [_stamp(invoice.period_start), _stamp(invoice.period_end)],
        "total": money.text(invoice.total, invoice.currency),
        "lines": [_said(line, parts, invoice.currency) for line, parts in made.lines],
    }
    # said only where it says something, so that what was frozen before these existed keeps its hash
    if invoice.billing_month:
        said |= {
            "kind": invoice.kind,
            "month": invoice.billing_month,
            "details": invoice.buyer_details,
            "credit": money.text(invoice.credit_total, invoice.currency),
            "due_at": _stamp(invoice.due_at) if invoice.due_at else None,
            "taxes": [
                [
                    tax.title,
                    money.plain(tax.percent),
                    *(money.text(one, invoice.currency) for one in (tax.taxable, tax.amount)),
                ]
                for tax in made.taxes
            ],
        }
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _said(line: InvoiceLine, parts: Sequence[InvoicePart], currency: str) -> dict[str, Any]:
    said = {
        "title": line.title,
        "meter": line.meter_id,
        "sku": line.sku,
        "late": line.late,
        "unit": line.unit,
        "unit_size": money.plain(line.unit_size),
        "unit_price": money.plain(line.unit_price),
        "service": [_stamp(line.started_at), _stamp(line.ended_at)],
        "quantity": money.plain(line.quantity),
        "exact": money.plain(line.exact),
        "amount": money.text(line.amount, currency),
        "parts": [
            [part.subject, part.subject_title, money.plain(part.quantity), money.plain(part.exact)]
            for part in parts
        ],
    }
    return said if line.kind == LineKind.USAGE else {**said, "kind": line.kind, "corrects": line.corrects_id}


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
