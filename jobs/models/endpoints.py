"""Endpoints, their immutable revisions, and the replicas that answer."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs.models.registry import ModelVersion
from jobs.states import ENDPOINT_ARROWS, REPLICA_LIVE, EndpointStatus, ReplicaStatus
from tenants.lifecycle import Lifecycle, arrows
from tenants.models import PublicIdField, TenantOwned

REPLICA_ARROWS = arrows(
    {
        ReplicaStatus.STARTING: [],
        ReplicaStatus.READY: [ReplicaStatus.STARTING],
        ReplicaStatus.DRAINING: [ReplicaStatus.READY],
        ReplicaStatus.STOPPED: REPLICA_LIVE,
        ReplicaStatus.FAILED: REPLICA_LIVE,
    }
)


WHOLE = 10_000  # basis points


class Endpoint(TenantOwned):
    """An address of a tenant that answers with a model. Private unless somebody ticks otherwise."""

    NOUN: ClassVar[str] = "endpoints"
    LIFECYCLE: ClassVar[Lifecycle] = Lifecycle(noun="endpoint", arrows=ENDPOINT_ARROWS)

    public_id = PublicIdField("ep")
    name = models.CharField(_("name"), max_length=80)
    slug = models.SlugField(_("address"), max_length=40)  # /t/<tenant slug>/<slug>/v2/...
    status = models.CharField(max_length=10, choices=EndpointStatus.choices, default=EndpointStatus.STARTING)
    status_at = models.DateTimeField(default=timezone.now)
    error = models.TextField(blank=True)
    is_public = models.BooleanField(_("public"), default=False)
    requests_per_minute = models.PositiveIntegerField(_("requests a minute"), default=600)
    replicas_wanted = models.PositiveSmallIntegerField(
        default=1
    )  # now; the keeper moves it within the bounds

    # which revisions answer; shares are basis points of the requests
    current = models.ForeignKey(
        "jobs.Revision", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    previous = models.ForeignKey(  # what `current` was before: where a rollback goes
        "jobs.Revision", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    canary = models.ForeignKey(
        "jobs.Revision", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    canary_share = models.PositiveSmallIntegerField(default=0)
    canary_since = models.DateTimeField(null=True, blank=True)
    shadow = models.ForeignKey(
        "jobs.Revision", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    shadow_share = models.PositiveSmallIntegerField(default=0)
    # a canary is taken back by itself beyond these, once it has answered `guard_min_requests`
    guard_error_share = models.FloatField(_("highest share of errors"), default=0.05)
    guard_p95_ratio = models.FloatField(_("highest p95 against the stable revision"), default=2.0)
    guard_min_requests = models.PositiveIntegerField(_("requests before judging"), default=50)
    rollout_note = models.TextField(blank=True)  # why the last canary was taken back

    # what the gateway holds callers to
    deadline_ms = models.PositiveIntegerField(_("answer within"), default=30_000)
    most_at_once = models.PositiveIntegerField(_("requests at once"), default=0)  # 0: no limit

    # the request log: off unless somebody turns it on
    log_percent = models.FloatField(_("share of requests kept"), default=0.0)
    log_days = models.PositiveSmallIntegerField(_("days kept"), default=7)
    log_masks = models.JSONField(_("hidden inputs"), default=list)  # names, replaced by "***"
    log_mask_texts = models.BooleanField(_("addresses and long numbers hidden"), default=True)

    # how many workers
    min_replicas = models.PositiveSmallIntegerField(_("fewest workers"), default=1)
    max_replicas = models.PositiveSmallIntegerField(_("most workers"), default=1)
    target_concurrency = models.PositiveSmallIntegerField(_("requests at once per worker"), default=8)
    scale_up_after_s = models.PositiveIntegerField(_("add workers after"), default=5)
    scale_down_after_s = models.PositiveIntegerField(_("remove workers after"), default=60)
    zero_after_s = models.PositiveIntegerField(_("sleep after"), default=300)  # where min_replicas is 0
    warm_hours = models.JSONField(_("kept warm"), default=list)  # jobs.scaling.WarmHours as JSON, UTC

    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        permissions = [("invoke_endpoint", "Can invoke endpoint"), ("share_endpoint", "Can share endpoint")]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "slug"], name="one_endpoint_per_address"),
            models.CheckConstraint(
                condition=Q(status__in=EndpointStatus.values), name="endpoint_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(canary_share__lte=WHOLE, shadow_share__lte=WHOLE),
                name="endpoint_shares_are_shares",
            ),
            models.CheckConstraint(
                condition=Q(max_replicas__gte=1, min_replicas__lte=models.F("max_replicas")),
                name="endpoint_replicas_are_bounded",
            ),
            models.CheckConstraint(
                condition=Q(log_percent__gte=0, log_percent__lte=100, log_days__gte=1),
                name="endpoint_log_is_a_share_for_some_days",
            ),
            models.CheckConstraint(
                condition=Q(canary=None) | ~Q(canary=models.F("current")),
                name="canary_is_not_the_current_revision",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("jobs:endpoint_detail", args=[self.public_id])

    @property
    def state(self) -> EndpointStatus:
        return EndpointStatus(self.status)

    @property
    def base_url(self) -> str:
        """Where clients call it; `/v2/...` of the Open Inference Protocol follows."""
        return f"{settings.GATEWAY_URL}/t/{self.tenant.slug}/{self.slug}"

    @property
    def live_stream(self) -> str:
        return f"endpoint.{self.public_id}"


class Revision(TenantOwned):
    """One model version behind an endpoint from some moment on. Never changed."""

    SEEN_THROUGH: ClassVar[str | None] = "endpoint"

    public_id = PublicIdField("rev")
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="revisions")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["endpoint", "number"], name="one_revision_per_number")]

    def __str__(self) -> str:
        return f"{self.endpoint.name} revision {self.number}"


class Replica(TenantOwned):
    """One model worker process of one revision."""

    SEEN_THROUGH: ClassVar[str | None] = "revision"
    LIFECYCLE: ClassVar[Lifecycle] = Lifecycle(noun="replica", arrows=REPLICA_ARROWS)

    public_id = PublicIdField("rep")
    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="replicas")
    status = models.CharField(max_length=10, choices=ReplicaStatus.choices, default=ReplicaStatus.STARTING)
    status_at = models.DateTimeField(default=timezone.now)
    address = models.CharField(max_length=200, blank=True)  # Unix socket path
    handle = models.JSONField(default=dict)
    fence = models.CharField(max_length=32)
    allocations = models.JSONField(default=list)  # ids of billing allocations
    error = models.TextField(blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["status"], condition=Q(status__in=REPLICA_LIVE), name="live_replicas")
        ]

    def __str__(self) -> str:
        return self.public_id


class UsageLog(models.Model):
    """How far each write-ahead log file of a gateway has been shipped to billing."""

    name = models.CharField(max_length=120, unique=True)
    offset = models.PositiveBigIntegerField(default=0)
    finished_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
