"""How endpoints did, and who is told: samples and alerts."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs.models.endpoints import Endpoint, Revision
from tenants.models import PublicIdField, TenantOwned


class Sample(models.Model):
    """What one revision did in the few seconds before `at`. No row where nothing happened."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="samples")
    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField()
    seconds = models.FloatField()
    requests = models.PositiveIntegerField(default=0)  # answered, well or not
    errors = models.PositiveIntegerField(default=0)  # of these, answered 5xx
    refused = models.PositiveIntegerField(default=0)  # 429 and 503: not the model's doing
    rows = models.PositiveIntegerField(default=0)
    batches = models.PositiveIntegerField(default=0)
    us = models.PositiveBigIntegerField(default=0)  # summed over requests
    latency = models.JSONField(default=list)  # counts by jobs.gateway.pulse.BOUNDS_MS
    in_flight = models.FloatField(default=0)  # mean
    waiting = models.FloatField(default=0)  # mean, of requests no worker has begun
    replicas = models.PositiveSmallIntegerField(default=0)
    classes = models.JSONField(default=dict)  # predictions by class
    is_shadow = models.BooleanField(default=False)  # its answers were thrown away

    class Meta:
        indexes = [models.Index(fields=["endpoint", "at"], name="samples_of_an_endpoint")]

    def __str__(self) -> str:
        return f"{self.endpoint_id} {self.at:%H:%M:%S}"


class InputCount(models.Model):
    """What one revision was sent in one hour: counts in the bins of its version's profile, and no value."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="input_counts")
    hour = models.DateTimeField()
    rows = models.PositiveBigIntegerField(default=0)
    counts = models.JSONField(default=list)  # one list a gauge, as trainer.gauges orders them

    class Meta:
        constraints = [models.UniqueConstraint(fields=["revision", "hour"], name="inputs_counted_by_hour")]

    def __str__(self) -> str:
        return f"{self.revision_id} {self.hour:%Y-%m-%d %H}:00"


class AlertMetric(models.TextChoices):
    """What an alert may watch. The unit is that of its threshold."""

    ERROR_SHARE = "error_share", _("Share of errors (%)")
    P95_MS = "p95_ms", _("p95 latency (ms)")
    P99_MS = "p99_ms", _("p99 latency (ms)")
    REQUEST_RATE = "request_rate", _("Requests a second")
    WAITING = "waiting", _("Requests waiting")
    REPLICAS = "replicas", _("Workers ready")
    CLASS_SHARE = "class_share", _("Share of a class (%)")
    DRIFT = "drift", _("Drift of predictions (PSI)")
    INPUT_DRIFT = "input_drift", _("Drift of inputs (highest PSI)")


class AlertRule(TenantOwned):
    """Tells somebody when a number of an endpoint crosses a bound, and when it is back."""

    SEEN_THROUGH: ClassVar[str | None] = "endpoint"

    public_id = PublicIdField("alr")
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="alert_rules")
    name = models.CharField(_("name"), max_length=80)
    metric = models.CharField(_("number"), max_length=16, choices=AlertMetric.choices)
    class_name = models.CharField(_("class"), max_length=200, blank=True)  # or the input that is watched
    above = models.BooleanField(_("direction"), default=True)  # False: alert below the threshold
    threshold = models.FloatField(_("bound"))
    window_s = models.PositiveIntegerField(_("window"), default=300)
    min_requests = models.PositiveIntegerField(_("fewest requests"), default=20)
    emails = models.JSONField(_("e-mail"), default=list)
    webhook_url = models.URLField(_("webhook"), max_length=500, blank=True)
    webhook_secret = models.BinaryField(default=b"")  # sealed with the tenant's key
    firing_since = models.DateTimeField(null=True, blank=True)
    value = models.FloatField(null=True, blank=True)  # as last looked at
    created_by = models.ForeignKey("tenants.User", null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(metric__in=AlertMetric.values), name="alert_metric_is_known"
            )
        ]

    def __str__(self) -> str:
        return self.name


class AlertEvent(models.Model):
    """A rule fired or ended; the message to its webhook is tried until it arrives or a day has passed."""

    public_id = PublicIdField("ale")
    rule = models.ForeignKey(AlertRule, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    firing = models.BooleanField()
    value = models.FloatField(null=True)
    text = models.TextField()
    webhook_due = models.DateTimeField(null=True, blank=True)  # None: nothing to send, or sent, or given up
    webhook_tries = models.PositiveSmallIntegerField(default=0)
    webhook_said = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-at", "-pk"]
        indexes = [
            models.Index(
                fields=["webhook_due"], condition=models.Q(webhook_due__isnull=False), name="webhooks_due"
            )
        ]

    def __str__(self) -> str:
        return self.public_id
