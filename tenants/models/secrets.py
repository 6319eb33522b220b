"""The wrapped data key of each tenant."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class TenantKey(models.Model):
    """A tenant's data key, sealed by the master key. Without it the tenant's data is unreadable for ever."""

    tenant = models.OneToOneField("tenants.Tenant", on_delete=models.PROTECT, related_name="key")
    wrapped = models.BinaryField()
    rotated_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"key of {self.tenant}"
