"""Drafts that are always up to date, and invoices that never change again."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from billing import clock, money, rating
from billing.errors import NothingToBill, NotYet
from billing.models import (
    AccountKind,
    Allocation,
    Invoice,
    InvoiceLine,
    InvoicePart,
    InvoiceSequence,
    Meter,
    UsageDay,
)
from billing.months import Month
from billing.services import ledger, locks, reconcile, unbilled
from billing.states import InvoiceStatus
from tenants.actor import Actor
from tenants.errors import Conflict, Hidden
from tenants.lifecycle import move
from tenants.models import Tenant
from tenants.permissions import require

SERIES = "INV"
_DRAFT_ID = re.compile(r"^draft-(ten_[0-9a-z]{26})-([0-9]{4}-[0-9]{2})$", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An invoice with its lines and their parts; a draft's rows are not stored."""

    invoice: Invoice
    lines: list[tuple[InvoiceLine, list[InvoicePart]]]


def readable_by(actor: Actor) -> QuerySet[Invoice]:
    """Frozen invoices this actor may read: their tenant's; staff with reports read all."""
    frozen = Invoice.objects.exclude(status=InvoiceStatus.DRAFT)
    return frozen if actor.may("platform.reports") else frozen.visible_to(actor)


def find(actor: Actor, shown_id: str) -> Document:
    """The document behind an id of an address: `inv_…`, `draft-ten_…-2026-11` or `current`. Else Hidden."""
    if shown_id == "current" and actor.tenant is not None:
        return draft(actor, actor.tenant, Month.of(clock.now()))
    if named := _DRAFT_ID.match(shown_id):
        tenant, month = draft_target(named[1], named[2])
        return draft(actor, tenant, month)
    invoice = readable_by(actor).filter(public_id=shown_id).first()
    if invoice is None:
        raise Hidden
    return document(invoice)


def draft_target(tenant_id: str, month: str) -> tuple[Tenant, Month]:
    """Tenant and month of a draft's id, or Hidden."""
    tenant = Tenant.objects.filter(public_id=tenant_id).first()
    try:
        parsed = Month.parse(month)
    except ValueError as error:
        raise Hidden from error
    if tenant is None:
        raise Hidden
    return tenant, parsed


def open_drafts(actor: Actor) -> list[Invoice]:
    """For staff: every tenant's months that have usage and no invoice to their end yet, oldest first."""
    require(actor, "platform.reports")
    months: dict[int, set[Month]] = {}
    for tenant_id, day in UsageDay.objects.values_list("tenant_id", "day").distinct():
        months.setdefault(tenant_id, set()).add(Month.of(day))
    found = []
    for tenant in Tenant.objects.filter(pk__in=months):
        last = unbilled.last_invoice(tenant)
        for month in months[tenant.pk]:
            if last is None or last.period_end < month.end:
                made = _compose(tenant, unbilled.window(tenant, month, period_end=month.end))
                found += [made.invoice] if made.lines else []
    return sorted(found, key=lambda invoice: (invoice.period_start, invoice.buyer_name))


def document(invoice: Invoice) -> Document:
    """A frozen invoice as it was written."""
    lines = invoice.lines.prefetch_related("parts")
    return Document(invoice=invoice, lines=[(line, list(line.parts.all())) for line in lines])


def draft(actor: Actor, tenant: Tenant, month: Month) -> Document:
    """What the month's invoice would say now; once the month is invoiced, what it says. Stores nothing."""
    _require_reader(actor, tenant)
    if found := _already(tenant, month, unbilled.last_invoice(tenant), None):
        return document(found)
    return _compose(tenant, unbilled.window(tenant, month, period_end=month.end))


def finalize(
    actor: Actor, tenant: Tenant, month: Month, *, early: bool = False, period_start: datetime | None = None
) -> Invoice:
    """Number and freeze the month's invoice; once frozen, asking again returns the same one.

    `early` closes a month that still runs: the period ends at this instant, later usage goes on the next one.
    `period_start`, as shown on a draft, makes an early close safe to repeat.
    """
    require(actor, "invoices.finalize")
    with transaction.atomic():
        # alone in here: no usage of this tenant is stored until we are done, and no second invoice is made
        locks.close_for_invoice(tenant.pk)
        now = clock.now()
        last = unbilled.last_invoice(tenant)
        if found := _already(tenant, month, last, period_start):
            return found
        period_end = _end_of(tenant, month, now, early=early)
        window = unbilled.window(tenant, month, period_end=period_end)
        if window.earlier is not None:
            text = _("%(month)s has usage without an invoice. Finalize %(month)s first.")
            raise Conflict(text % {"month": window.earlier})
        if not window.usage:
            if last is not None and last.month == month:
                return last
            text = _("%(tenant)s has no unbilled usage in %(month)s.")
            raise NothingToBill(text % {"tenant": tenant.name, "month": month})
        if window.currencies != {settings.CURRENCY}:
            text = _(
                "Some usage is priced in %(others)s. "
                "One invoice has one currency: set TAUON_CURRENCY back, finalize, then change it."
            )
            raise Conflict(text % {"others": ", ".join(sorted(window.currencies - {settings.CURRENCY}))})
        if wrong := reconcile.check(tenant):
            text = _("The books of %(tenant)s do not agree, so nothing is finalized: %(why)s")
            raise Conflict(text % {"tenant": tenant.name, "why": wrong[0]})
        return _freeze(actor, _compose(tenant, window), now)


def _already(
    tenant: Tenant, month: Month, last: Invoice | None, period_start: datetime | None
) -> Invoice | None:
    """The invoice that was made of this very draft before."""
    if last is None:
        return None
    mine = Invoice.objects.filter(tenant=tenant, period_end__gt=month.start, period_start__lt=month.end)
    if period_start is not None and (found := mine.filter(period_start=period_start).first()):
        return found
    return mine.order_by("-period_end").first() if last.period_end >= month.end else None


def _end_of(tenant: Tenant, month: Month, now: datetime, *, early: bool) -> datetime:
    if now < month.start:
        raise NotYet(_("%(month)s has not begun.") % {"month": month})
    if now < month.end:
        if not early:
            text = _("%(month)s ends on %(day)s 00:00 UTC. Wait until then, or close it early.")
            raise NotYet(text % {"month": month, "day": month.next.first})
        return now
    behind = Allocation.objects.open().filter(tenant=tenant, settled_through__lt=month.end).count()
    if behind:
        text = _(
            "What runs right now (%(n)s) has not reported beyond the end of %(month)s yet. "
            "Try again in a minute."
        )
        raise NotYet(text % {"n": behind, "month": month}, retry_after_s=60)
    return month.end


def _compose(tenant: Tenant, window: unbilled.Window) -> Document:
    lines = rating.rate([one for one in window.usage if one.price.currency == settings.CURRENCY])
    titles = dict(Meter.objects.values_list("key", "title"))
    invoice = Invoice(
        tenant=tenant,
        status=InvoiceStatus.DRAFT,
        currency=settings.CURRENCY,
        period_start=window.period_start,
        period_end=window.period_end,
        through_id=window.through_id,
        seller_name=getattr(settings, "SELLER_NAME", "Tauon"),
        buyer_name=tenant.name,
        buyer_id=tenant.public_id,
        total=money.total([line.amount for line in lines]),
    )
    return Document(
        invoice=invoice,
        lines=[_row(invoice, position, line, titles) for position, line in enumerate(lines, start=1)],
    )


def _row(
    invoice: Invoice, position: int, line: rating.Line, titles: dict[str, str]
) -> tuple[InvoiceLine, list[InvoicePart]]:
    row = InvoiceLine(
        invoice=invoice,
        position=position,
        late=line.late,
        meter_id=line.price.meter,
        title=titles[line.price.meter],
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
            exact=money.kept(line.price.amount(part.quantity)),
        )
        for part in line.parts
    ]
    return row, parts


def _freeze(actor: Actor, made: Document, now: datetime) -> Invoice:
    invoice = made.invoice
    invoice.status_at = now
    invoice.save()
    for line, parts in made.lines:
        line.invoice = invoice
        line.save()
        for part in parts:
            part.line = line
        InvoicePart.objects.bulk_create(parts)
    sequence = InvoiceSequence.objects.select_for_update().get(series=SERIES)
    sequence.last += 1
    sequence.save()
    invoice.number = f"{SERIES}-{sequence.last:06d}"
    move(
        invoice,
        to=InvoiceStatus.FINALIZED,
        by=actor,
        number=invoice.number,
        finalized_at=now,
        content_hash=content_hash(made),
    )
    ledger.post(
        invoice.tenant,
        key=f"invoice:{invoice.public_id}",
        currency=invoice.currency,
        amounts={AccountKind.RECEIVABLE: invoice.total, AccountKind.REVENUE: -invoice.total},
        invoice=invoice,
    )
    return invoice


def content_hash(made: Document) -> str:
    """SHA-256 of everything the invoice says."""
    invoice = made.invoice
    said = {
        "number": invoice.number,
        "seller": invoice.seller_name,
        "buyer": [invoice.buyer_id, invoice.buyer_name],
        "currency": invoice.currency,
        "period": [_stamp(invoice.period_start), _stamp(invoice.period_end)],
        "total": money.text(invoice.total, invoice.currency),
        "lines": [
            {
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
                "amount": money.text(line.amount, invoice.currency),
                "parts": [
                    [part.subject, part.subject_title, money.plain(part.quantity), money.plain(part.exact)]
                    for part in parts
                ],
            }
            for line, parts in made.lines
        ],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _require_reader(actor: Actor, tenant: Tenant) -> None:
    """Staff with reports read every draft; others their tenant's, with the right to."""
    if actor.may("platform.reports"):
        return
    if actor.tenant is None or actor.tenant.pk != tenant.pk:
        raise Hidden
    require(actor, "invoices.view")


def exact_total(made: Document) -> Decimal:
    """The sum of a document's lines before rounding."""
    return money.total([line.exact for line, _parts in made.lines])


def finalize_shown(
    actor: Actor, shown_id: str, *, early: bool = False, period_start: datetime | None = None
) -> Invoice:
    """Finalize the draft behind an id of an address; a frozen invoice's id gives that invoice."""
    found = find(actor, shown_id).invoice
    require(actor, "invoices.finalize")
    if not found.is_draft:
        return found
    return finalize(actor, found.tenant, found.month, early=early, period_start=period_start)
