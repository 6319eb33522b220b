"""Drafts that are always up to date, and invoices that never change again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from billing import clock
from billing.errors import NothingToBill, NotYet, Parked
from billing.models import (
    AccountKind,
    Allocation,
    BillingAccount,
    CreditKind,
    Invoice,
    InvoiceLine,
    InvoicePart,
    InvoiceTax,
    UsageDay,
)
from billing.months import Calendar, Month
from billing.services import accounts, credits, documents, ledger, locks, receivables, reconcile, unbilled
from billing.services.documents import Document
from billing.states import InvoiceStatus
from tenants.actor import Actor
from tenants.errors import Conflict, Hidden, Invalid
from tenants.lifecycle import move
from tenants.models import Tenant
from tenants.permissions import require

SERIES = "INV"
_NEXT_NUMBER = """
insert into billing_invoicesequence as s (series, last) values (%s, 1)
on conflict (series) do update set last = s.last + 1 returning last
"""
_DRAFT_ID = re.compile(r"^draft-(ten_[0-9a-z]{26})-([0-9]{4}-[0-9]{2})$", re.ASCII)


def readable_by(actor: Actor) -> QuerySet[Invoice]:
    """Frozen invoices this actor may read: their tenant's; staff with reports read all."""
    frozen = Invoice.objects.exclude(status=InvoiceStatus.DRAFT)
    return frozen if actor.may("platform.reports") else frozen.visible_to(actor)


def find(actor: Actor, shown_id: str) -> Document:
    """The document behind an id of an address: `inv_…`, `draft-ten_…-2026-11` or `current`. Else Hidden."""
    if shown_id == "current" and actor.tenant is not None:
        return draft(actor, actor.tenant, accounts.this_month(actor.tenant))
    if named := _DRAFT_ID.match(shown_id):
        tenant, month = draft_target(named[1], named[2])
        return draft(actor, tenant, month)
    invoice = readable_by(actor).filter(public_id=shown_id).first()
    if invoice is None:
        raise Hidden
    return documents.stored(invoice)


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
    found = []
    used = UsageDay.objects.values("tenant_id").distinct()
    for tenant in Tenant.objects.filter(pk__in=used):
        account, last = accounts.of(tenant), unbilled.last_invoice(tenant)
        for month in months_open(account.calendar, _days(tenant), last):
            made = _compose(tenant, account, month, last)
            found += [made.invoice] if made.lines else []
    return sorted(found, key=lambda invoice: (invoice.period_start, invoice.buyer_name))


def open_months(tenant: Tenant) -> list[Month]:
    """Months of the account's calendar with usage and no invoice to their end yet, oldest first."""
    return months_open(accounts.calendar_of(tenant), _days(tenant), unbilled.last_invoice(tenant))


def months_open(calendar: Calendar, days: Iterable[date], last: Invoice | None) -> list[Month]:
    """Months that days of usage lie in and that the last invoice does not reach the end of, oldest first."""
    # a UTC day may touch two months of another calendar; one without usage composes no lines
    months = {
        calendar.month_of(edge)
        for day in days
        for edge in (at_midnight(day), at_midnight(day) + timedelta(hours=23, minutes=59))
    }
    return sorted(month for month in months if last is None or last.period_end < calendar.end(month))


def _days(tenant: Tenant) -> QuerySet[UsageDay, date]:
    return UsageDay.objects.filter(tenant=tenant).values_list("day", flat=True).distinct()


def at_midnight(day: date) -> datetime:
    """The first instant of a UTC day."""
    return datetime.combine(day, time(), tzinfo=UTC)


def draft(actor: Actor, tenant: Tenant, month: Month) -> Document:
    """What the month's invoice would say now; once the month is invoiced, what it says. Stores nothing."""
    _require_reader(actor, tenant)
    account, last = accounts.of(tenant), unbilled.last_invoice(tenant)
    if found := _already(tenant, account.calendar, month, last, None):
        return documents.stored(found)
    return _compose(tenant, account, month, last)


def _compose(tenant: Tenant, account: BillingAccount, month: Month, last: Invoice | None) -> Document:
    calendar = account.calendar
    window = unbilled.window(tenant, month, period_end=calendar.end(month), calendar=calendar, last=last)
    return documents.compose(tenant, account, month, window, left=tenant.closed_at is not None)


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
        account = accounts.lock(tenant)
        calendar = account.calendar
        now = clock.now()
        last = unbilled.last_invoice(tenant)
        if found := _already(tenant, calendar, month, last, period_start):
            return found
        if account.is_parked:
            raise Parked(_not_agreed(tenant, [account.parked_reason]))
        left = tenant.closed_at is not None
        end = _end_of(tenant, calendar, month, now, early=early)
        window = unbilled.window(tenant, month, period_end=end, calendar=calendar, last=last)
        if window.earlier is not None:
            text = _("%(month)s has usage without an invoice. Finalize %(month)s first.")
            raise Conflict(text % {"month": window.earlier})
        if window.currencies - {account.currency}:
            text = _("Some usage is priced in %(others)s, and this account is billed in %(currency)s.")
            others = ", ".join(sorted(window.currencies - {account.currency}))
            raise Conflict(text % {"others": others, "currency": account.currency})
        made = documents.compose(tenant, account, month, window, left=left)
        if not made.lines:
            if last is not None and last.month == month:
                return last
            text = _("%(tenant)s has no unbilled usage in %(month)s.")
            raise NothingToBill(text % {"tenant": tenant.name, "month": month})
        if wrong := reconcile.check(tenant):
            raise Conflict(_not_agreed(tenant, wrong))
        return _freeze(actor, account, made, now)


def _not_agreed(tenant: Tenant, wrong: list[str]) -> str:
    text = _("The books of %(tenant)s do not agree, so nothing is finalized: %(why)s")
    return text % {"tenant": tenant.name, "why": wrong[0]}


def _already(
    tenant: Tenant, calendar: Calendar, month: Month, last: Invoice | None, period_start: datetime | None
) -> Invoice | None:
    """The invoice that was made of this very draft before."""
    if last is None:
        return None
    start, end = calendar.start(month), calendar.end(month)
    mine = Invoice.objects.filter(tenant=tenant, period_end__gt=start, period_start__lt=end).holding()
    if period_start is not None and (found := mine.filter(period_start=period_start).first()):
        return found
    return mine.order_by("-period_end").first() if last.period_end >= end else None


def _end_of(tenant: Tenant, calendar: Calendar, month: Month, now: datetime, *, early: bool) -> datetime:
    end = calendar.end(month)
    if now < calendar.start(month):
        raise NotYet(_("%(month)s has not begun.") % {"month": month})
    if now < end:
        if not early:
            text = _("%(month)s ends on %(day)s UTC. Wait until then, or close it early.")
            raise NotYet(text % {"month": month, "day": f"{end:%Y-%m-%d %H:%M}"})
        return now
    behind = Allocation.objects.open().filter(tenant=tenant, settled_through__lt=end).count()
    if behind:
        text = _(
            "What runs right now (%(n)s) has not reported beyond the end of %(month)s yet. "
            "Try again in a minute."
        )
        raise NotYet(text % {"n": behind, "month": month}, retry_after_s=60)
    return end


def _freeze(actor: Actor, account: BillingAccount, made: Document, now: datetime) -> Invoice:
    invoice = made.invoice
    invoice.status_at = now
    invoice.due_at = now + timedelta(days=account.terms_days)
    invoice.save()
    for line, _parts in made.lines:
        line.invoice = invoice
    InvoiceLine.objects.bulk_create([line for line, _parts in made.lines])
    for line, parts in made.lines:
        for part in parts:
            part.line = line
    InvoicePart.objects.bulk_create([part for _line, parts in made.lines for part in parts])
    for tax in made.taxes:
        tax.invoice = invoice
    InvoiceTax.objects.bulk_create(made.taxes)
    invoice.number = next_number(SERIES)
    move(
        invoice,
        to=InvoiceStatus.FINALIZED,
        by=actor,
        number=invoice.number,
        finalized_at=now,
        content_hash=documents.content_hash(made),
    )
    credits.take(invoice, made.burnt)
    if invoice.credit_total < 0:
        credits.book(
            invoice.tenant,
            amount=-invoice.credit_total,
            currency=invoice.currency,
            kind=CreditKind.REFUND,
            key=f"invoice:{invoice.public_id}",
            now=now,
            note=invoice.number,
        )
    ledger.post(
        invoice.tenant,
        key=f"invoice:{invoice.public_id}",
        currency=invoice.currency,
        amounts={
            AccountKind.RECEIVABLE: invoice.due,
            AccountKind.CREDIT: invoice.credit_total,
            AccountKind.REVENUE: -invoice.net,
            AccountKind.TAX: -invoice.tax_total,
        },
        invoice=invoice,
    )
    if invoice.due <= 0:  # nobody can have paid what is only now an invoice
        receivables.settle(actor, invoice)
    return invoice


def next_number(series: str) -> str:
    """The next number of a series, given for good only if this transaction commits: no gap, no double."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_NUMBER, [series])
        (last,) = cursor.fetchone()
    return f"{series}-{last:06d}"


def void(actor: Actor, invoice: Invoice, *, reason: str) -> Invoice:
    """Take the last invoice of a tenant back as a whole: its usage is billed anew, its credit returns to its lots.

    Refused once money came in or a later invoice builds on it: then a credit note is the way.
    """
    require(actor, "invoices.finalize")
    if not reason.strip():
        raise Invalid.at("/reason", "required", _("Say why this invoice is taken back."))
    with transaction.atomic():
        locks.close_for_invoice(invoice.tenant_id)
        accounts.lock(invoice.tenant)
        invoice = Invoice.objects.select_for_update().get(pk=invoice.pk)
        if invoice.is_void:
            return invoice
        last = unbilled.last_invoice(invoice.tenant)
        touched = invoice.payments.exists() or invoice.notes.exists() or invoice.credit_total < 0
        if touched or last is None or last.pk != invoice.pk:
            text = _("%(number)s has payments, notes or later invoices. Make a credit note instead.")
            raise Conflict(text % {"number": invoice.number})
        move(invoice, to=InvoiceStatus.VOID, by=actor, reason=reason[:200])
        credits.give_back(invoice)
        ledger.reverse(f"invoice:{invoice.public_id}", key=f"void:{invoice.public_id}")
        if wrong := reconcile.check(invoice.tenant):
            raise Conflict(_not_agreed(invoice.tenant, wrong))
    return invoice


def _require_reader(actor: Actor, tenant: Tenant) -> None:
    """Staff with reports read every draft; others their tenant's, with the right to."""
    if actor.may("platform.reports"):
        return
    if actor.tenant is None or actor.tenant.pk != tenant.pk:
        raise Hidden
    require(actor, "invoices.view")


def finalize_shown(
    actor: Actor, shown_id: str, *, early: bool = False, period_start: datetime | None = None
) -> Invoice:
    """Finalize the draft behind an id of an address; a frozen invoice's id gives that invoice."""
    found = find(actor, shown_id).invoice
    require(actor, "invoices.finalize")
    if not found.is_draft:
        return found
    return finalize(actor, found.tenant, found.month, early=early, period_start=period_start)
