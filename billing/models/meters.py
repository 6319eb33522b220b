"""What is measured, and who holds what right now."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models.fields import QuantityField
from tenants.models.base import PublicIdField, TenantOwned, VisibleQuerySet


class Meter(models.Model):
    """A thing that is counted in base units (GPU-seconds) and priced in natural ones (GPU-hours)."""

    key = models.CharField(_("key"), max_length=40, primary_key=True)
    title = models.CharField(_("title"), max_length=80)
    unit = models.CharField(_("base unit"), max_length=40)
    natural_unit = models.CharField(_("natural unit"), max_length=40)
    natural_size = QuantityField(_("base units in a natural unit"))
    tax_category = models.CharField(_("tax category"), max_length=40, default="standard")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("meter")
        verbose_name_plural = _("meters")
        constraints = [
            models.CheckConstraint(condition=Q(natural_size__gt=0), name="natural_size_is_positive")
        ]

    def __str__(self) -> str:
        return self.key


class AllocationQuerySet(VisibleQuerySet):
    def open(self) -> AllocationQuerySet:
        """Still held, so still costing."""
        return self.filter(ended_at=None)


class Allocation(TenantOwned):
    """Something held exclusively for a while and paid by the second: open until it has an end.

    `settled_through` is how far its time is already written down as usage; it only grows. The fence is the
    holder's token: a beat with another one is somebody who lost the place and is told so.
    """

    NOUN: ClassVar[str] = "usage"

    public_id = PublicIdField("alc")
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+")
    sku = models.CharField(max_length=60)
    units = models.PositiveIntegerField()
    subject = models.CharField(max_length=40)
    subject_title = models.CharField(max_length=200)
    user_label = models.CharField(max_length=200, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    hold = models.ForeignKey("billing.Hold", null=True, on_delete=models.PROTECT, related_name="allocations")
    fence = models.CharField(max_length=80)
    lease_s = models.PositiveIntegerField()
    seq = models.PositiveIntegerField(default=0)  # of the last interval
    started_at = models.DateTimeField()
    settled_through = models.DateTimeField()
    last_beat_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=60, blank=True)

    objects = AllocationQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        indexes = [
            models.Index(fields=["last_beat_at"], condition=Q(ended_at=None), name="open_allocations"),
            models.Index(fields=["tenant", "subject"], name="allocations_by_subject"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(units__gt=0), name="allocation_holds_something"),
            models.CheckConstraint(
                condition=Q(settled_through__gte=F("started_at")), name="allocation_settles_forward"
            ),
            models.CheckConstraint(
                condition=Q(ended_at=None) | Q(ended_at__gte=F("started_at")),
                name="allocation_ends_after_start",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class UsageInterval(models.Model):
    """A settled stretch [started_at, ended_at) of one allocation. The database refuses overlaps."""

    allocation = models.ForeignKey(Allocation, on_delete=models.PROTECT, related_name="intervals")
    seq = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    units = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["allocation", "seq"], name="one_interval_per_seq"),
            models.CheckConstraint(condition=Q(ended_at__gt=F("started_at")), name="interval_is_not_empty"),
        ]

    def __str__(self) -> str:
        return f"{self.allocation_id}:{self.seq}"
