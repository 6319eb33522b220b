"""Credit a tenant holds, what it was spent on, and what is set aside for work that runs."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models.fields import AmountField, QuantityField
from billing.models.invoices import Invoice
from tenants.models.base import PublicIdField, TenantOwned


class CreditKind(models.TextChoices):
    PAID = "paid", _("Paid ahead")
    PROMO = "promo", _("Given")
    REFUND = "refund", _("From a credit note")


class CreditGrant(TenantOwned):
    """One lot of credit. Lots burn by priority, then earliest expiry, given before paid, then age.

    A lot pays for usage that happened in [starts_at, expires_at), of its meters only where it names any.
    """

    NOUN: ClassVar[str] = "invoices"

    public_id = PublicIdField("crd")
    kind = models.CharField(_("kind"), max_length=10, choices=CreditKind)
    currency = models.CharField(max_length=3)
    amount = AmountField(_("amount"))
    remaining = AmountField()
    priority = models.PositiveSmallIntegerField(_("priority"), default=50)  # lower burns first
    starts_at = models.DateTimeField()
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    meters = models.JSONField(_("meters"), default=list, blank=True)  # keys; empty: any
    note = models.CharField(_("note"), max_length=200, blank=True)
    key = models.CharField(max_length=120)  # asked for twice with one key, granted once
    broken_at = models.DateTimeField(null=True)  # when its unused rest became breakage
    broken = AmountField(default=0)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="credit_is_granted_once"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="credit_is_positive"),
            models.CheckConstraint(
                condition=Q(remaining__gte=0, remaining__lte=F("amount")), name="credit_is_never_overspent"
            ),
            models.CheckConstraint(condition=Q(broken__gte=0), name="breakage_is_not_negative"),
            models.CheckConstraint(
                condition=Q(expires_at=None) | Q(expires_at__gt=F("starts_at")), name="credit_lives_a_while"
            ),
            models.CheckConstraint(condition=Q(kind__in=CreditKind.values), name="credit_kind_is_known"),
        ]

    def __str__(self) -> str:
        return self.public_id


class CreditUse(models.Model):
    """What an invoice took of a lot, or gave back when it was voided (negative). Append-only."""

    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="uses")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="credit_uses")
    amount = AmountField()
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.grant}: {self.amount}"


class Hold(TenantOwned):
    """Money set aside for one piece of work when it is placed; its beats turn it into accrued usage."""

    NOUN: ClassVar[str] = "usage"

    source = models.CharField(max_length=80, unique=True)
    currency = models.CharField(max_length=3)
    amount = QuantityField()
    captured = QuantityField(default=0)
    expires_at = models.DateTimeField()
    released_at = models.DateTimeField(null=True)
    release_reason = models.CharField(max_length=60, blank=True)

    class Meta:
        indexes = [models.Index(fields=["tenant"], condition=Q(released_at=None), name="open_holds")]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="hold_is_not_negative"),
            models.CheckConstraint(
                condition=Q(captured__gte=0, captured__lte=F("amount")), name="hold_is_never_overdrawn"
            ),
        ]

    def __str__(self) -> str:
        return self.source
