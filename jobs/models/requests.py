"""The request log of endpoints: a sample of what callers sent and got, masked, sealed with the tenant's key."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from jobs.models.endpoints import Endpoint
from tenants.models import PublicIdField, TenantOwned


class LoggedRequest(TenantOwned):
    """One request that fell into the sample. What was sent and answered is in `sealed` alone."""

    SEEN_THROUGH: ClassVar[str | None] = "endpoint"

    public_id = PublicIdField("lrq")
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="logged_requests")
    at = models.DateTimeField()  # when its answer was out
    request_id = models.CharField(max_length=64)
    revision = models.PositiveIntegerField()  # its number
    token = models.CharField(
        max_length=40, blank=True
    )  # public id; empty: a public endpoint was called without
    status = models.PositiveSmallIntegerField()
    us = models.PositiveBigIntegerField()
    rows = models.PositiveIntegerField(default=0)
    label = models.CharField(max_length=200, blank=True)  # the first row's class
    sealed = models.BinaryField()  # {"input": ..., "output": ...}
    source = models.CharField(max_length=80, unique=True)  # file and line: read twice, kept once

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["endpoint", "-at"], name="requests_of_an_endpoint")]

    def __str__(self) -> str:
        return self.request_id


class RequestLogGap(models.Model):
    """So many requests of the sample were not kept, because there were too many at once."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="log_gaps")
    at = models.DateTimeField()
    count = models.PositiveIntegerField()
    source = models.CharField(max_length=80, unique=True)

    class Meta:
        indexes = [models.Index(fields=["endpoint", "at"], name="gaps_of_an_endpoint")]

    def __str__(self) -> str:
        return f"{self.endpoint_id} {self.at:%H:%M:%S}"
