"""Dated prices. A price that was ever in force never changes: the next one takes its place."""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing import rating
from billing.models.fields import AmountField, QuantityField
from billing.models.meters import Meter
from billing.tariffs import read_tiers


class PriceModel(models.TextChoices):
    UNIT = "unit", _("So much for each unit")
    GRADUATED = "graduated", _("Each tier prices what lies within it")
    VOLUME = "volume", _("The tier of the whole quantity prices all of it")
    PACKAGE = "package", _("So much for each package that is begun")


class PriceVersion(models.Model):
    """So much per natural unit, from a moment on. The database refuses two prices for one moment."""

    plan = models.CharField(_("plan"), max_length=40, default="standard")
    meter = models.ForeignKey(Meter, verbose_name=_("meter"), on_delete=models.PROTECT, related_name="prices")
    sku = models.CharField(_("SKU"), max_length=60, default="standard")
    currency = models.CharField(_("currency"), max_length=3)
    unit = models.CharField(_("natural unit"), max_length=40)
    unit_size = QuantityField(_("base units in a natural unit"))
    unit_price = models.DecimalField(_("price per natural unit"), max_digits=20, decimal_places=8)
    model = models.CharField(
        _("how it is priced"), max_length=10, choices=PriceModel, default=PriceModel.UNIT
    )
    tiers = models.JSONField(_("tiers"), default=list, blank=True)  # billing.tariffs.read_tiers
    included = QuantityField(_("base units a month that cost nothing"), default=0)
    minimum = AmountField(_("least amount of a month's line"), null=True, blank=True)
    maximum = AmountField(_("greatest amount of a month's line"), null=True, blank=True)
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
            models.CheckConstraint(condition=Q(included__gte=0), name="included_is_not_negative"),
            models.CheckConstraint(condition=Q(model__in=PriceModel.values), name="price_model_is_known"),
            models.CheckConstraint(
                condition=(Q(minimum=None) | Q(minimum__gte=0))
                & (Q(maximum=None) | Q(maximum__gte=0))
                & (Q(minimum=None) | Q(maximum=None) | Q(maximum__gte=F("minimum"))),
                name="price_bounds_make_sense",
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
            model=self.model,
            tiers=read_tiers(self.tiers) if self.tiers else (),
            included=Decimal(self.included),
            minimum=self.minimum,
            maximum=self.maximum,
        )
