"""What is still owed on frozen invoices."""

from __future__ import annotations

from decimal import Decimal

from django.db.models import F, Sum

from billing import money
from billing.models import Invoice
from billing.states import InvoiceStatus, PaymentStatus
from tenants.actor import Actor
from tenants.lifecycle import move
from tenants.models import Tenant


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
    return True
