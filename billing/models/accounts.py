"""How a tenant is billed: currency, plan, calendar, terms, tax and standing."""

from __future__ import annotations

from typing import ClassVar
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models.fields import AmountField
from billing.months import Calendar
from tenants.models.base import PublicIdField, TenantOwned


def known_zone(name: str) -> None:
    """Refuse a name that is not in the time zone database."""
    if name not in available_timezones():
        raise ValidationError(_("%(name)s is not a time zone; write it as Europe/Berlin.") % {"name": name})


class AccountMode(models.TextChoices):
    POSTPAID = "postpaid", _("Pays by invoice")
    PREPAID = "prepaid", _("Pays ahead: work stops when the credit is used up")


class Standing(models.TextChoices):
    """What an account may do while invoices are unpaid."""

    GOOD = "good", _("In good standing")
    BLOCK_NEW = "block_new", _("New work is refused")
    STOP = "stop", _("New work is refused and running work is stopped")


class TaxRate(models.Model):
    """One dated tax rate of a region for a category of meters. The database refuses two for one moment."""

    region = models.CharField(_("region"), max_length=40)
    category = models.CharField(_("category"), max_length=40, default="standard")
    title = models.CharField(_("title on invoices"), max_length=60)
    percent = models.DecimalField(_("per cent"), max_digits=7, decimal_places=4)
    valid_from = models.DateTimeField(_("valid from"))
    valid_to = models.DateTimeField(_("valid to"), null=True, blank=True)

    class Meta:
        verbose_name = _("tax rate")
        verbose_name_plural = _("tax rates")
        ordering = ["region", "category", "-valid_from"]
        constraints = [
            models.CheckConstraint(condition=Q(percent__gte=0, percent__lte=100), name="tax_is_a_percentage"),
            models.CheckConstraint(
                condition=Q(valid_to=None) | Q(valid_to__gt=F("valid_from")), name="tax_is_valid_for_a_while"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.title} {self.percent.normalize():f} %"


class BillingAccount(TenantOwned):
    """One a tenant. Currency, zone and anchor day never change once there is usage: the database sees to it."""

    NOUN: ClassVar[str] = "invoices"

    public_id = PublicIdField("acc")
    currency = models.CharField(_("currency"), max_length=3)
    plan = models.CharField(_("plan"), max_length=40, default="standard")
    mode = models.CharField(_("mode"), max_length=10, choices=AccountMode, default=AccountMode.POSTPAID)
    zone = models.CharField(_("time zone"), max_length=64, default="UTC", validators=[known_zone])
    anchor_day = models.PositiveSmallIntegerField(_("first day of a month"), default=1)
    grace_minutes = models.PositiveIntegerField(_("minutes after a month until its invoice"), default=60)
    terms_days = models.PositiveSmallIntegerField(_("days to pay"), default=14)
    commitment = AmountField(_("agreed minimum a month"), default=0)
    tax_region = models.CharField(_("tax region"), max_length=40, blank=True)
    buyer_details = models.TextField(_("address and tax number on invoices"), blank=True, max_length=600)
    language = models.CharField(_("language of documents"), max_length=10, default="en")
    customer = models.CharField(max_length=120, blank=True)  # this tenant's name at the payment provider
    standing = models.CharField(max_length=10, choices=Standing, default=Standing.GOOD)
    parked_at = models.DateTimeField(null=True, blank=True)
    parked_reason = models.TextField(blank=True)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = _("billing account")
        verbose_name_plural = _("billing accounts")
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="one_billing_account_per_tenant"),
            models.CheckConstraint(
                condition=Q(anchor_day__gte=1, anchor_day__lte=31), name="anchor_day_is_a_day"
            ),
            models.CheckConstraint(condition=Q(commitment__gte=0), name="commitment_is_not_negative"),
            models.CheckConstraint(condition=Q(mode__in=AccountMode.values), name="account_mode_is_known"),
            models.CheckConstraint(condition=Q(standing__in=Standing.values), name="standing_is_known"),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def calendar(self) -> Calendar:
        """Where this account's months begin."""
        return Calendar(zone=self.zone, anchor=self.anchor_day)

    @property
    def is_prepaid(self) -> bool:
        return self.mode == AccountMode.PREPAID

    @property
    def is_parked(self) -> bool:
        return self.parked_at is not None
