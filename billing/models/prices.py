"""Dated prices. A price that was ever in force never changes: the next one takes its place."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing import rating
from billing.models.fields import QuantityField
from billing.models.meters import Meter


class PriceVersion(models.Model):
    """So much per natural unit, from a moment on. The database refuses two prices for one moment."""

    plan = models.CharField(_("plan"), max_length=40, default="standard")
    meter = models.ForeignKey(Meter, verbose_name=_("meter"), on_delete=models.PROTECT, related_name="prices")
    sku = models.CharField(_("SKU"), max_length=60, default="standard")
    currency = models.CharField(_("currency"), max_length=3)
    unit = models.CharField(_("natural unit"), max_length=40)
    unit_size = QuantityField(_("base units in a natural unit"))
    unit_price = models.DecimalField(_("price per natural unit"), max_digits=20, decimal_places=8)
    valid_from = models.DateTimeField(_("valid from"))
    valid_to = models.DateTimeField(_("valid to"), null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        ordering = ["meter_id", "sku", "-valid_from"]
        constraints = [
            models.CheckConstraint(condition=Q(unit_price__gte=0), name="price_is_not_negative"),
            models.CheckConstraint(condition=Q(unit_size__gt=0), name="price_unit_is_positive"),
            models.CheckConstraint(
                condition=Q(valid_to=None) | Q(valid_to__gt=F("valid_from")),
                name="price_is_valid_for_a_while",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter_id} {self.sku} {self.unit_price} {self.currency}"

    @property
    def value(self) -> rating.Price:
        """This price as the pure code knows it."""
        return rating.Price(
            id=self.pk,
            meter=self.meter_id,
            sku=self.sku,
            currency=self.currency,
            unit=self.unit,
            unit_price=self.unit_price,
            unit_size=self.unit_size,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
        )
