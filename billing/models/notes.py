"""Credit notes: documents of their own that take back part of a frozen invoice."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from billing.models.fields import AmountField
from billing.models.invoices import Invoice, InvoiceLine
from tenants.models.base import PublicIdField, TenantOwned


class NoteRest(models.TextChoices):
    """Where the part of a note goes that the invoice does not owe any more."""

    CREDIT = "credit", _("Becomes credit of the tenant")
    REFUND = "refund", _("Is paid back")


class CreditNote(TenantOwned):
    """Numbered and frozen at once. Its sum first lowers what is unpaid; the rest becomes credit or is paid back."""

    NOUN: ClassVar[str] = "invoices"

    public_id = PublicIdField("crn")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="notes")
    number = models.CharField(max_length=40, unique=True)
    key = models.CharField(max_length=120)
    reason = models.CharField(_("reason"), max_length=200)
    currency = models.CharField(max_length=3)
    net = AmountField()
    tax_total = AmountField()
    total = AmountField()
    off_receivable = AmountField()  # lowered what was unpaid
    to_credit = AmountField()
    to_refund = AmountField()
    issued_at = models.DateTimeField()
    content_hash = models.CharField(max_length=64)
    issuer: str = ""  # not of the note: who issued it, where staff are shown a list

    class Meta:
        ordering = ["-issued_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "key"], name="a_note_is_made_once"),
            models.CheckConstraint(condition=Q(total__gt=0), name="note_is_positive"),
        ]

    def __str__(self) -> str:
        return self.number

    def get_absolute_url(self) -> str:
        return reverse("billing:invoice_note_detail", args=[self.public_id])


class CreditNoteLine(models.Model):
    """What a note takes back of one invoice line. The database refuses more than the line has."""

    note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="lines")
    line = models.ForeignKey(InvoiceLine, on_delete=models.PROTECT, related_name="noted")
    amount = AmountField()

    class Meta:
        ordering = ["id"]
        constraints = [models.CheckConstraint(condition=Q(amount__gt=0), name="note_line_is_positive")]

    def __str__(self) -> str:
        return f"{self.line}: -{self.amount}"


class CreditNoteTax(models.Model):
    """The tax a note takes back, by rate."""

    note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="taxes")
    title = models.CharField(max_length=60)
    percent = models.DecimalField(max_digits=7, decimal_places=4)
    taxable = AmountField()
    amount = AmountField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.title} {self.shown_percent} %"

    @property
    def shown_percent(self) -> str:
        return f"{Decimal(self.percent).normalize():f}"
