"""What a meter costs the house itself, dated: the other side of a price. Read by the margin report alone."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models.meters import Meter


class CostRate(models.Model):
    """So much a natural unit costs the house from a moment on, up to the next rate of the same meter and SKU."""

    meter = models.ForeignKey(Meter, verbose_name=_("meter"), on_delete=models.PROTECT, related_name="+")
    sku = models.CharField(_("SKU"), max_length=60, default="standard")
    currency = models.CharField(_("currency"), max_length=3)
    unit_cost = models.DecimalField(_("cost per natural unit"), max_digits=20, decimal_places=8)
    valid_from = models.DateTimeField(_("valid from"))
    valid_to = models.DateTimeField(_("valid to"), null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("cost rate")
        verbose_name_plural = _("cost rates")
        ordering = ["meter_id", "sku", "-valid_from"]
        constraints = [
            models.CheckConstraint(condition=Q(unit_cost__gte=0), name="cost_rate_is_not_negative"),
            models.CheckConstraint(
                condition=Q(valid_to=None) | Q(valid_to__gt=F("valid_from")),
                name="cost_rate_is_valid_for_a_while",
            ),
            models.UniqueConstraint(
                fields=["meter", "sku", "currency", "valid_from"], name="one_cost_rate_from_a_moment"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter_id} {self.sku} {self.unit_cost} {self.currency}"
