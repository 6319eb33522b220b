"""Money that came in or went back, what providers told us, and the steps taken about unpaid invoices."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models.fields import AmountField
from billing.models.invoices import Invoice
from billing.states import PAYMENT, PAYMENT_TONES, PaymentStatus
from tenants.models.base import PublicIdField, TenantOwned


class Payment(TenantOwned):
    """One payment of an invoice, or of credit bought ahead (no invoice). Its amount never changes."""

    NOUN: ClassVar[str] = "invoices"
    LIFECYCLE = PAYMENT

    public_id = PublicIdField("pay")
    invoice = models.ForeignKey(Invoice, null=True, on_delete=models.PROTECT, related_name="payments")
    provider = models.CharField(max_length=20)
    reference = models.CharField(_("reference"), max_length=120, blank=True)  # at the provider, or of a bank
    key = models.CharField(max_length=120)
    status = models.CharField(max_length=10, choices=PaymentStatus, default=PaymentStatus.PENDING)
    status_at = models.DateTimeField(default=timezone.now)
    currency = models.CharField(max_length=3)
    amount = AmountField(_("amount"))
    to_credit = AmountField(default=0)  # what was not owed any more when it arrived
    failure = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="a_payment_is_made_once"),
            models.UniqueConstraint(
                fields=["provider", "reference"], condition=~Q(reference=""), name="a_reference_pays_once"
            ),
            models.CheckConstraint(condition=Q(amount__gt=0), name="payment_is_positive"),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def tone(self) -> str:
        return PAYMENT_TONES[PaymentStatus(self.status)]


class Refund(TenantOwned):
    """Money paid back of one payment. The database refuses more than came in."""

    NOUN: ClassVar[str] = "invoices"

    public_id = PublicIdField("rfd")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="refunds")
    note = models.ForeignKey(
        "billing.CreditNote", null=True, on_delete=models.PROTECT, related_name="refunds"
    )
    key = models.CharField(max_length=120, unique=True)
    reference = models.CharField(max_length=120, blank=True)
    amount = AmountField()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.CheckConstraint(condition=Q(amount__gt=0), name="refund_is_positive")]

    def __str__(self) -> str:
        return self.public_id


class ProviderEvent(models.Model):
    """A message of a payment provider, kept so that the same one again changes nothing. Append-only."""

    provider = models.CharField(max_length=20)
    event = models.CharField(max_length=120)
    kind = models.CharField(max_length=80)
    payload_hash = models.CharField(max_length=64)
    outcome = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "event"], name="a_provider_event_acts_once")
        ]

    def __str__(self) -> str:
        return f"{self.provider}:{self.event}"


class DunningStep(models.Model):
    """One step taken about one unpaid invoice: each at most once."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="dunning")
    step = models.CharField(max_length=20)
    due_on = models.DateField()
    taken_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["taken_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "step"], name="a_dunning_step_is_taken_once")
        ]

    def __str__(self) -> str:
        return f"{self.invoice}: {self.step}"


class PeriodClose(models.Model):
    """How far the scheduled close of one account's month has come; a run that dies is taken up from here."""

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.PROTECT, related_name="+")
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    outcome = models.CharField(max_length=10)  # invoiced, nothing, waiting, failed
    detail = models.CharField(max_length=400, blank=True)
    invoice = models.ForeignKey(Invoice, null=True, on_delete=models.PROTECT, related_name="+")
    tries = models.PositiveIntegerField(default=0)
    tried_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "period_start"], name="one_close_of_a_period")
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.period_start:%Y-%m}: {self.outcome}"
