"""What is still owed on frozen invoices."""

from __future__ import annotations

from decimal import Decimal

from django.db.models import F, Sum

from billing import money
from billing.models import BillingAccount, DunningStep, Invoice, Standing
from billing.services import accounts
from billing.states import InvoiceStatus, PaymentStatus
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.lifecycle import move
from tenants.models import Tenant

PAID_BY = "payment:"  # a lot of credit that a payment became is named after it


def outstanding(invoice: Invoice) -> Decimal:
    """What is left to pay of an invoice now: credit, payments and notes taken off."""
    if invoice.status in {InvoiceStatus.DRAFT, InvoiceStatus.VOID}:
        return money.ZERO
    paid = invoice.payments.filter(status=PaymentStatus.SUCCEEDED)
    received = paid.aggregate(sum=Sum(F("amount") - F("to_credit")))["sum"] or money.ZERO
    noted = invoice.notes.aggregate(sum=Sum("off_receivable"))["sum"] or money.ZERO
    return money.EXACT.subtract(invoice.due, money.EXACT.add(received, noted))


def open_invoices(tenant: Tenant) -> list[tuple[Invoice, Decimal]]:
    """Invoices with something left to pay, the oldest first."""
    rows = Invoice.objects.filter(tenant=tenant, status=InvoiceStatus.FINALIZED).order_by("due_at", "id")
    found = [(invoice, outstanding(invoice)) for invoice in rows]
    return [(invoice, left) for invoice, left in found if left > 0]


def settle(actor: Actor, invoice: Invoice) -> bool:
    """Mark an invoice paid once nothing is left to pay. In the transaction of what lowered it."""
    if invoice.status != InvoiceStatus.FINALIZED or outstanding(invoice) > 0:
        return False
    move(invoice, to=InvoiceStatus.PAID, by=actor)
    refresh_standing(invoice.tenant)
    return True


def refresh_standing(tenant: Tenant) -> Standing:
    """Set what the account may do from the steps taken about invoices that are still unpaid."""
    unpaid = [invoice.pk for invoice, _left in open_invoices(tenant)]
    taken = set(DunningStep.objects.filter(invoice__in=unpaid).values_list("step", flat=True))
    worst = Standing.GOOD
    for standing in (Standing.BLOCK_NEW, Standing.STOP):
        if standing in taken:
            worst = standing
    changed = BillingAccount.objects.filter(tenant=tenant).exclude(standing=worst).update(standing=worst)
    if changed:
        audit.record(SYSTEM, "account.standing", accounts.of(tenant), tenant=tenant, standing=worst)
    return worst
