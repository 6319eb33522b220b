"""Frozen invoices: everything an invoice says is copied into it, and triggers refuse any later change."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from billing import money
from billing.models.fields import AmountField, QuantityField
from billing.models.meters import Meter
from billing.models.prices import PriceVersion
from billing.months import Month
from billing.states import INVOICE, TONES, InvoiceStatus
from tenants.models.base import PublicIdField, TenantOwned, VisibleQuerySet


class InvoiceKind(models.TextChoices):
    USAGE = "usage", _("Invoice")
    CORRECTION = "correction", _("Correction invoice")  # late usage of a tenant that left


class LineKind(models.TextChoices):
    USAGE = "usage", _("Usage")
    TAKEN_BACK = "taken_back", _("Taken back")  # of an earlier line that the next one says anew
    COMMITMENT = "commitment", _("Up to the agreed minimum")


class InvoiceQuerySet(VisibleQuerySet):
    def holding(self) -> InvoiceQuerySet:
        """Frozen and not void: what they cover is billed."""
        return self.exclude(status__in=[InvoiceStatus.DRAFT, InvoiceStatus.VOID])


class InvoiceSequence(models.Model):
    """The last number given. Taken and advanced in the transaction that finalizes, so numbers have no gap."""

    series = models.CharField(max_length=20, primary_key=True)
    last = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.series}-{self.last}"


class Invoice(TenantOwned):
    """A numbered invoice over [period_start, period_end).

    It covers every event stored up to `through_id` that happened before `period_end` and that no earlier
    invoice of the tenant covers. Both bounds only grow from invoice to invoice, so none is lost or doubled.
    """

    NOUN: ClassVar[str] = "invoices"
    LIFECYCLE = INVOICE

    public_id = PublicIdField("inv")
    status = models.CharField(max_length=10, choices=InvoiceStatus, default=InvoiceStatus.DRAFT)
    status_at = models.DateTimeField()
    number = models.CharField(max_length=40, unique=True, null=True)
    currency = models.CharField(max_length=3)
    billing_month = models.CharField(max_length=7, default="")  # of the account's calendar; "": the UTC month
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    through_id = models.BigIntegerField()
    seller_name = models.CharField(max_length=120)
    buyer_name = models.CharField(max_length=120)
    buyer_id = models.CharField(max_length=40)
    kind = models.CharField(max_length=10, choices=InvoiceKind, default=InvoiceKind.USAGE)
    buyer_details = models.TextField(blank=True, default="")
    language = models.CharField(max_length=10, default="en")
    tax_total = AmountField(default=0)
    total = AmountField(default=0)  # lines and tax
    credit_total = AmountField(
        default=0
    )  # paid from credit; below zero: the sum was negative and became credit
    due_at = models.DateTimeField(null=True)
    finalized_at = models.DateTimeField(null=True)
    content_hash = models.CharField(max_length=64, blank=True)

    objects = InvoiceQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        ordering = ["-period_start", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "period_start"],
                condition=~Q(status=InvoiceStatus.VOID),
                name="a_period_is_invoiced_once",
            ),
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")), name="invoice_period_is_real"
            ),
            models.CheckConstraint(
                condition=Q(status=InvoiceStatus.DRAFT) | Q(number__isnull=False, finalized_at__isnull=False),
                name="a_frozen_invoice_has_a_number",
            ),
        ]

    def __str__(self) -> str:
        return self.number or self.public_id

    def get_absolute_url(self) -> str:
        return reverse("billing:invoice_detail", args=[self.shown_id])

    @property
    def shown_id(self) -> str:
        """The id in addresses. A draft is not stored, so it is named by whose it is and when."""
        return f"draft-{self.buyer_id}-{self.month}" if self.pk is None else self.public_id

    @property
    def is_draft(self) -> bool:
        return self.status == InvoiceStatus.DRAFT

    @property
    def is_void(self) -> bool:
        return self.status == InvoiceStatus.VOID

    @property
    def net(self) -> Decimal:
        """Lines without tax."""
        return self.total - self.tax_total

    @property
    def due(self) -> Decimal:
        """What was left to pay when it was made."""
        return self.total - self.credit_total

    @property
    def month(self) -> Month:
        """The month of the account's calendar this is the invoice of."""
        return Month.parse(self.billing_month) if self.billing_month else Month.of(self.period_start)

    @property
    def tone(self) -> str:
        return TONES[InvoiceStatus(self.status)]


class InvoiceLine(models.Model):
    """All usage at one price in the period, rounded once. A frozen copy."""

    SEEN_THROUGH: ClassVar[str] = "invoice"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=LineKind, default=LineKind.USAGE)
    late = models.BooleanField(default=False)  # happened in a period that was already invoiced
    month = models.CharField(max_length=7, blank=True, default="")  # of a price that is not linear
    corrects = models.ForeignKey(
        "self", null=True, on_delete=models.PROTECT, related_name="taken_back_by"
    )  # the frozen line this one takes back
    tax_percent = models.DecimalField(max_digits=7, decimal_places=4, null=True)
    meter = models.ForeignKey(Meter, null=True, on_delete=models.PROTECT, related_name="+")
    title = models.CharField(max_length=80)
    sku = models.CharField(max_length=60)
    price = models.ForeignKey(PriceVersion, null=True, on_delete=models.PROTECT, related_name="+")
    unit = models.CharField(max_length=40)
    unit_size = QuantityField()
    unit_price = models.DecimalField(max_digits=20, decimal_places=8)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    quantity = QuantityField()  # in base units
    exact = QuantityField()  # before rounding
    amount = AmountField()

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["invoice", "position"], name="one_line_per_position")]

    def __str__(self) -> str:
        return f"{self.title}: {self.amount}"

    @property
    def natural_quantity(self) -> Decimal:
        """The quantity in the unit the price speaks of."""
        return money.EXACT.divide(self.quantity, self.unit_size)


class InvoicePart(models.Model):
    """What one subject used within a line. A frozen copy."""

    line = models.ForeignKey(InvoiceLine, on_delete=models.PROTECT, related_name="parts")
    subject = models.CharField(max_length=40)
    subject_title = models.CharField(max_length=200)
    quantity = QuantityField()
    exact = QuantityField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.subject}: {self.exact}"

    @property
    def natural_quantity(self) -> Decimal:
        return money.EXACT.divide(self.quantity, self.line.unit_size)


class InvoiceTax(models.Model):
    """The tax of one rate on all its lines together, rounded once. A frozen copy."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="taxes")
    title = models.CharField(max_length=60)
    percent = models.DecimalField(max_digits=7, decimal_places=4)
    taxable = AmountField()
    amount = AmountField()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "percent", "title"], name="one_tax_per_rate")
        ]

    def __str__(self) -> str:
        return f"{self.title} {self.shown_percent} %"

    @property
    def shown_percent(self) -> str:
        return f"{Decimal(self.percent).normalize():f}"
