"""Lifecycles, tones and reasons. A small set of statuses; a typed reason decides the final status, text and retry."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from tenants.lifecycle import arrows


class JobKind(models.TextChoices):
    """What a job does with its dataset."""

    TRAINING = "training", _("Training")
    PREDICTION = "batch_prediction", _("Batch prediction")


class JobStatus(models.TextChoices):
    QUEUED = "queued", _("Queued")  # -> starting | cancelled | failed
    STARTING = "starting", _("Starting")  # queued -> starting: a gang has its processes and GPUs
    RUNNING = "running", _("Running")  # starting -> running: the engine spoke
    STOPPING = "stopping", _("Stopping")  # starting | running -> stopping: somebody or a limit asked
    SUCCEEDED = "succeeded", _("Succeeded")  # running | stopping -> succeeded
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Stopped")

    @property
    def tone(self) -> str:
        return _JOB_TONES[self][0]

    @property
    def shape(self) -> str:
        return _JOB_TONES[self][1]


_JOB_TONES = {
    JobStatus.QUEUED: ("warn", "○"),
    JobStatus.STARTING: ("info", "◔"),
    JobStatus.RUNNING: ("info", "●"),
    JobStatus.STOPPING: ("idle", "◔"),
    JobStatus.SUCCEEDED: ("ok", "●"),
    JobStatus.FAILED: ("bad", "◆"),
    JobStatus.CANCELLED: ("idle", "○"),
}

JOB_ARROWS = arrows(
    {
        JobStatus.QUEUED: [JobStatus.STARTING, JobStatus.RUNNING],  # the attempt was lost: in line again
        JobStatus.STARTING: [JobStatus.QUEUED],
        JobStatus.RUNNING: [JobStatus.STARTING],
        JobStatus.STOPPING: [JobStatus.STARTING, JobStatus.RUNNING],
        JobStatus.SUCCEEDED: [JobStatus.RUNNING, JobStatus.STOPPING],
        JobStatus.FAILED: [JobStatus.QUEUED, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.STOPPING],
        JobStatus.CANCELLED: [JobStatus.QUEUED, JobStatus.STOPPING],
    }
)
JOB_ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
JOB_ON_MACHINES = frozenset({JobStatus.STARTING, JobStatus.RUNNING, JobStatus.STOPPING})


class Reason(models.TextChoices):
    """Why an attempt or a job ended. The label is what the person reads."""

    NONE = "", ""
    BY_USER = "by_user", _("Stopped by a person.")
    TIME_LIMIT = "time_limit", _("The time limit of the job was reached.")
    SPEND_LIMIT = "spend_limit", _("The spend limit of the job was reached.")
    BUDGET = "budget", _("The tenant's budget was reached.")
    BAD_SPEC = "bad_spec", _("The engine could not use the spec.")
    BAD_DATA = "bad_data", _("The data does not fit the recipe.")
    DIVERGED = "diverged", _("The loss is no longer a number. Try a smaller learning rate.")
    OUT_OF_MEMORY = "out_of_memory", _("Out of memory. Try a smaller batch size.")
    DISK_FULL = "disk_full", _("The disk is full. Free some space and run it again.")
    STALLED = "stalled", _("No step was finished for too long: a process or a machine hung.")
    KILLED = "killed", _("A training process was killed from outside; memory may have run out.")
    CRASHED = "crashed", _("A training process crashed.")
    WORKER_LOST = "worker_lost", _("The worker that ran this was lost.")
    PREEMPTED = "preempted", _("The machine was needed or shut down; the job goes on from its checkpoint.")
    TOO_MANY_ATTEMPTS = "too_many_attempts", _("It was lost too many times and is not tried again.")

    @property
    def final_status(self) -> JobStatus:
        stops = {Reason.BY_USER, Reason.TIME_LIMIT, Reason.SPEND_LIMIT, Reason.BUDGET}
        return JobStatus.CANCELLED if self in stops else JobStatus.FAILED

    @property
    def retryable(self) -> bool:
        """Perhaps not the job's fault: try again from the last checkpoint."""
        return self is Reason.PREEMPTED or self in MOST_TRIES


# tries of one job that may end so; what keeps happening is the job's own doing, or would only burn money
MOST_TRIES = {Reason.WORKER_LOST: 5, Reason.KILLED: 3, Reason.STALLED: 2}


class EndpointStatus(models.TextChoices):
    STARTING = "starting", _("Starting")  # a revision has been asked for and no replica answers yet
    # starting | failed -> live: a replica of the current revision answers
    LIVE = "live", pgettext_lazy("endpoint", "Live")
    ASLEEP = "asleep", _("Asleep")  # live -> asleep: nobody called for a while; a request wakes it
    FAILED = "failed", _("Failed")  # starting | live -> failed: replicas do not come up
    STOPPED = "stopped", _("Stopped")  # any -> stopped: somebody stopped it; publishing starts it again

    @property
    def tone(self) -> str:
        return _ENDPOINT_TONES[self][0]

    @property
    def shape(self) -> str:
        return _ENDPOINT_TONES[self][1]


_ENDPOINT_TONES = {
    EndpointStatus.STARTING: ("info", "◔"),
    EndpointStatus.LIVE: ("ok", "●"),
    EndpointStatus.ASLEEP: ("idle", "◔"),
    EndpointStatus.FAILED: ("bad", "◆"),
    EndpointStatus.STOPPED: ("idle", "○"),
}

ENDPOINT_ARROWS = arrows(
    {
        EndpointStatus.STARTING: [
            EndpointStatus.LIVE,
            EndpointStatus.ASLEEP,
            EndpointStatus.FAILED,
            EndpointStatus.STOPPED,
        ],
        EndpointStatus.LIVE: [EndpointStatus.STARTING, EndpointStatus.FAILED],
        EndpointStatus.ASLEEP: [EndpointStatus.LIVE],
        EndpointStatus.FAILED: [EndpointStatus.STARTING, EndpointStatus.LIVE],
        EndpointStatus.STOPPED: [
            EndpointStatus.STARTING,
            EndpointStatus.LIVE,
            EndpointStatus.ASLEEP,
            EndpointStatus.FAILED,
        ],
    }
)


class ReplicaStatus(models.TextChoices):
    STARTING = "starting", _("Starting")
    READY = "ready", _("Ready")  # starting -> ready: the worker accepts requests
    DRAINING = "draining", _("Draining")  # ready -> draining: out of the routes, finishing what it has
    STOPPED = "stopped", _("Stopped")
    FAILED = "failed", _("Failed")


REPLICA_LIVE = frozenset({ReplicaStatus.STARTING, ReplicaStatus.READY, ReplicaStatus.DRAINING})
