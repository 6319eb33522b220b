"""What was used: append-only events, and their sums by day."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from billing.models.fields import QuantityField
from billing.models.meters import Meter
from billing.models.prices import PriceVersion
from tenants.models import Tenant
from tenants.models.base import TenantOwned, VisibleQuerySet


class UsageEvent(TenantOwned):
    """One piece of usage with the price it has. Its id is the order of storing within a tenant.

    An event never crosses midnight UTC nor a price change: `event_time` alone decides day, month and price.
    """

    NOUN: ClassVar[str] = "usage"

    # every index and every key that is looked up is paid for with each event: the two indexes below serve every
    # question that is asked, and the trigger that sums a batch sees to tenant, price, meter and SKU
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    source = models.CharField(max_length=40)
    key = models.CharField(max_length=200)
    meter = models.ForeignKey(
        Meter, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    sku = models.CharField(max_length=60)
    price = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    quantity = QuantityField()
    event_time = models.DateTimeField()
    ended_at = models.DateTimeField()  # same as event_time for a thing of one moment
    subject = models.CharField(max_length=40)
    subject_title = models.CharField(max_length=200)
    user_label = models.CharField(max_length=200, blank=True)
    dims = models.JSONField(default=dict)
    payload_hash = models.CharField(max_length=64)

    class Meta:
        indexes = [models.Index(fields=["tenant", "event_time"], name="usage_by_time")]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "source", "key"], name="usage_is_recorded_once"),
            models.CheckConstraint(condition=Q(quantity__gte=0), name="usage_is_not_negative"),
            models.CheckConstraint(
                condition=Q(ended_at__gte=models.F("event_time")), name="usage_ends_after_start"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.source}:{self.key}"


class UsageDayQuerySet(VisibleQuerySet):
    def between(self, start, end) -> UsageDayQuerySet:  # type: ignore[no-untyped-def]
        """Days in [start, end)."""
        return self.filter(day__gte=start, day__lt=end)


class UsageDay(TenantOwned):
    """Sums of events by UTC day, price, subject and user; written together with the event.

    Pages and budgets read these few rows. An invoice never does: it reads the events.
    """

    NOUN: ClassVar[str] = "usage"

    day = models.DateField()
    price = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="+")
    subject = models.CharField(max_length=40)
    subject_title = models.CharField(max_length=200)
    user_label = models.CharField(max_length=200, blank=True)
    quantity = QuantityField()

    objects = UsageDayQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        indexes = [
            models.Index(fields=["day"], name="usage_days"),
            models.Index(fields=["tenant", "subject"], name="usage_days_by_subject"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "day", "price", "subject", "user_label"], name="one_sum_per_day"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.subject}"
