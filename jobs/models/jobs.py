"""Jobs, their attempts, and the one numbered stream of what happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs.models.datasets import DatasetVersion
from jobs.states import JOB_ARROWS, JOB_ENDED, JOB_ON_MACHINES, JobKind, JobStatus, Reason
from tenants.lifecycle import Lifecycle
from tenants.models import PublicIdField, TenantOwned, VisibleQuerySet


class JobQuerySet(VisibleQuerySet):
    def running(self) -> Self:
        """On machines right now."""
        return self.filter(status__in=JOB_ON_MACHINES)

    def queued(self) -> Self:
        return self.filter(status=JobStatus.QUEUED)

    def ended(self) -> Self:
        return self.filter(status__in=JOB_ENDED)


def _tell_status(job: Job, status: str, reason: str) -> None:
    """Every change of status is one line of the job's own stream."""
    JobEvent.objects.append(
        job, [Draft(kind=STATUS_KIND, data={"status": str(status), "reason": str(reason)})]
    )


class Job(TenantOwned):
    """A request to train or to predict: the spec as accepted, where it stands, and how it ended."""

    NOUN: ClassVar[str] = "jobs"
    LIFECYCLE: ClassVar[Lifecycle] = Lifecycle(noun="job", arrows=JOB_ARROWS, on_move=_tell_status)

    public_id = PublicIdField("job")
    kind = models.CharField(max_length=20, choices=JobKind.choices, default=JobKind.TRAINING)
    name = models.CharField(_("name"), max_length=120)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    dataset_version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="jobs")
    # the version that answers, of a batch prediction
    predictor = models.ForeignKey(
        "jobs.ModelVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="predictions"
    )
    recipe = models.CharField(max_length=40)
    spec = models.JSONField()  # JobSpec.to_dict() or PredictionSpec.to_dict(), frozen
    processes = models.PositiveIntegerField()
    gpus = models.PositiveIntegerField(default=0)
    max_time_s = models.PositiveIntegerField()
    max_spend = models.DecimalField(max_digits=14, decimal_places=4, null=True, blank=True)
    estimate_low = models.DecimalField(max_digits=14, decimal_places=6)
    estimate_high = models.DecimalField(max_digits=14, decimal_places=6)

    status = models.CharField(
        max_length=12, choices=JobStatus.choices, default=JobStatus.QUEUED, db_index=True
    )
    status_at = models.DateTimeField(default=timezone.now)
    reason = models.CharField(max_length=24, choices=Reason.choices, default=Reason.NONE, blank=True)
    error = models.TextField(blank=True)  # the last error line, for the person
    waiting_for = models.CharField(max_length=200, blank=True)  # why it is still queued, in words
    stop_reason = models.CharField(max_length=24, blank=True)  # what asked it to stop, while it is stopping
    stop_asked_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    phase = models.CharField(max_length=20, blank=True)
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    epoch = models.PositiveIntegerField(default=0)
    eta_s = models.FloatField(null=True, blank=True)
    last_seq = models.PositiveBigIntegerField(default=0)  # the stream's counter, raised under this row's lock
    result = models.JSONField(null=True, blank=True)  # of a batch prediction: how many rows were answered

    objects = JobQuerySet.as_manager()  # type: ignore[misc]  # the stubs take managers for class variables

    class Meta:
        permissions = [("cancel_job", "Can cancel job"), ("share_job", "Can share job")]
        indexes = [models.Index(fields=["tenant", "-created_at"], name="jobs_by_tenant")]
        constraints = [
            models.CheckConstraint(condition=Q(processes__gte=1), name="a_job_has_a_process"),
            models.CheckConstraint(condition=Q(status__in=JobStatus.values), name="job_status_is_known"),
            models.CheckConstraint(
                condition=Q(kind=JobKind.TRAINING, predictor=None)
                | Q(kind=JobKind.PREDICTION, predictor__isnull=False),
                name="a_prediction_has_a_model",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("jobs:job_detail", args=[self.public_id])

    @property
    def live_stream(self) -> str:
        """The channel-layer group of this job's live pages."""
        return f"job.{self.public_id}"

    @property
    def state(self) -> JobStatus:
        return JobStatus(self.status)

    @property
    def is_ended(self) -> bool:
        return self.status in JOB_ENDED

    @property
    def reason_text(self) -> str:
        return str(Reason(self.reason).label)

    @property
    def seconds_on_clock(self) -> float | None:
        """Since the first attempt held its place, until the end or now; None before."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.finished_at or timezone.now()) - self.started_at).total_seconds())


class Attempt(TenantOwned):
    """One try at a job on machines. Its lease runs in database time; its fence refuses a late writer."""

    SEEN_THROUGH: ClassVar[str | None] = "job"

    public_id = PublicIdField("att")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    fence = models.CharField(max_length=32, unique=True)
    processes = models.PositiveIntegerField()
    lease_until = models.DateTimeField()
    taken_at = models.DateTimeField(null=True, blank=True)  # when a worker took it from the queue
    handle = models.JSONField(default=dict)  # what the compute backend needs to find and stop the gang again
    allocations = models.JSONField(default=list)  # ids of billing allocations
    events_offset = models.PositiveBigIntegerField(default=0)  # bytes of events.jsonl already ingested
    source_seq = models.PositiveBigIntegerField(default=0)  # last engine sequence number ingested
    ended_at = models.DateTimeField(null=True, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    reason = models.CharField(max_length=24, choices=Reason.choices, default=Reason.NONE, blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="one_attempt_per_number"),
            models.UniqueConstraint(
                fields=["job"], condition=Q(ended_at=None), name="one_live_attempt_per_job"
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.job}"


class JobFile(TenantOwned):
    """One encrypted file that a job made and that is no part of a model."""

    SEEN_THROUGH: ClassVar[str | None] = "job"

    public_id = PublicIdField("file")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="files")
    name = models.CharField(max_length=80)  # "predictions.csv"
    storage_key = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    size_bytes = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["job", "name"], name="one_file_per_name_in_a_job")]

    def __str__(self) -> str:
        return self.name


class GpuLease(models.Model):
    """One GPU of one node held by one attempt."""

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="gpu_leases")
    node = models.CharField(max_length=80)
    gpu = models.PositiveSmallIntegerField()
    released_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["node", "gpu"], condition=Q(released_at=None), name="one_attempt_per_gpu"
            )
        ]

    def __str__(self) -> str:
        return f"GPU {self.gpu} of {self.node}"


STATUS_KIND = "status"  # the platform's own kind beside those of the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event that has no number yet."""

    kind: str
    data: dict[str, Any]
    at: datetime | None = None  # None: now
    source_seq: int | None = None


class JobEventManager(models.Manager["JobEvent"]):
    def append(self, job: Job, drafts: Iterable[Draft], *, attempt: Attempt | None = None) -> int:
        """Number the drafts and write them; returns the last number. The job's row lock keeps gaps out."""
        with transaction.atomic():
            last = Job._base_manager.select_for_update().values_list("last_seq", flat=True).get(pk=job.pk)
            rows = []
            for draft in drafts:
                last += 1
                rows.append(
                    JobEvent(
                        job_id=job.pk,
                        seq=last,
                        attempt=attempt,
                        source_seq=draft.source_seq,
                        at=draft.at or timezone.now(),
                        kind=draft.kind,
                        data=draft.data,
                    )
                )
            self.bulk_create(rows)
            Job._base_manager.filter(pk=job.pk).update(last_seq=last)
        job.last_seq = last
        return last


class JobEvent(models.Model):
    """One line of a job's stream: what the engine said or the platform did, numbered without gaps."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveBigIntegerField()
    attempt = models.ForeignKey(Attempt, null=True, on_delete=models.CASCADE, related_name="+")
    source_seq = models.PositiveBigIntegerField(null=True)  # the engine's own number, within the attempt
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=16)  # trainer.contract.EventKind, or "status" for the platform's own
    data = models.JSONField(default=dict)

    objects = JobEventManager()

    class Meta:
        ordering = ["seq"]
        constraints = [
            models.UniqueConstraint(fields=["job", "seq"], name="one_event_per_seq"),
            models.UniqueConstraint(
                fields=["attempt", "source_seq"],
                condition=Q(source_seq__isnull=False),
                name="one_event_per_source_seq",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.kind}"
