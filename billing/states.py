"""The lives of an invoice and of a payment, with the arrow beside the state."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenants.lifecycle import Lifecycle, arrows


class InvoiceStatus(models.TextChoices):
    DRAFT = "draft", _("Draft")  # lines are still being written; only inside the transaction that finalizes
    FINALIZED = "finalized", _("Finalized")  # draft -> finalized: numbered and frozen
    PAID = "paid", _("Paid")  # finalized -> paid: payments, credit and notes cover it
    VOID = "void", _("Void")  # finalized | paid -> void: taken back as a whole; its usage is billed anew


class PaymentStatus(models.TextChoices):
    PENDING = "pending", _("Pending")  # asked for; the provider has not said yet
    SUCCEEDED = "succeeded", _("Succeeded")  # pending, failed -> succeeded: the money is booked
    FAILED = "failed", _("Failed")  # pending -> failed: nothing was booked


TONES = {
    InvoiceStatus.DRAFT: "info",
    InvoiceStatus.FINALIZED: "warn",
    InvoiceStatus.PAID: "ok",
    InvoiceStatus.VOID: "idle",
}
PAYMENT_TONES = {PaymentStatus.PENDING: "info", PaymentStatus.SUCCEEDED: "ok", PaymentStatus.FAILED: "bad"}

INVOICE = Lifecycle(
    noun="invoice",
    arrows=arrows(
        {
            InvoiceStatus.DRAFT: [],
            InvoiceStatus.FINALIZED: [InvoiceStatus.DRAFT],
            InvoiceStatus.PAID: [InvoiceStatus.FINALIZED],
            # paid by credit alone: the credit goes back. Once money came in, `void` refuses
            InvoiceStatus.VOID: [InvoiceStatus.FINALIZED, InvoiceStatus.PAID],
        }
    ),
)
PAYMENT = Lifecycle(
    noun="payment",
    arrows=arrows(
        {
            PaymentStatus.PENDING: [],
            PaymentStatus.SUCCEEDED: [PaymentStatus.PENDING, PaymentStatus.FAILED],
            PaymentStatus.FAILED: [PaymentStatus.PENDING],
        }
    ),
)
