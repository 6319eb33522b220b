"""Sums of usage by the hour. Written by the database itself, together with the events they sum."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.utils import timezone

from billing.models.fields import QuantityField
from billing.models.prices import PriceVersion
from tenants.models import Tenant
from tenants.models.base import TenantOwned, VisibleQuerySet


class UsageHourQuerySet(VisibleQuerySet):
    def between(self, start: datetime, end: datetime) -> UsageHourQuerySet:
        """Hours in [start, end)."""
        return self.filter(hour__gte=start, hour__lt=end)


class UsageHour(TenantOwned):
    """Sums of events by UTC hour, price, subject, user and labels.

    A trigger on the events keeps hours and days, so no way of storing usage can forget them. Reports read these
    rows; an invoice never does: it reads the events. `through_id` is the newest event in the sum.
    """

    NOUN: ClassVar[str] = "usage"

    # written with every event, so only indexes that are asked for
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    hour = models.DateTimeField()
    # its meter, SKU and currency
    price = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="+", db_index=False)
    subject = models.CharField(max_length=40)
    subject_title = models.CharField(max_length=200)
    user_label = models.CharField(max_length=200, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    quantity = QuantityField()
    events = models.BigIntegerField()
    through_id = models.BigIntegerField()

    objects = UsageHourQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        indexes = [
            models.Index(fields=["hour"], name="usage_hours"),
            models.Index(fields=["tenant", "subject"], name="usage_hours_by_subject"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "hour", "price", "subject", "user_label", "labels"], name="one_sum_per_hour"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:00} {self.subject}"
