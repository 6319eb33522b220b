"""The scheduler's own record of what was held: attempts and replicas, for billing to compare its books with.

An attempt's row is written by whoever places and ends it, and its lease by the beats of its holder; a replica's
changes of status are in the audit log. None of it is read from what was metered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.db.models import Count, Max

from billing.models import Allocation
from billing.timesheets import Shift, Timesheet
from jobs.models import Attempt, Endpoint, Job, Replica
from jobs.states import Reason, ReplicaStatus
from tenants.models import AuditEntry, Tenant

PROCESSES = frozenset({"train.process", "predict.process"})
GPUS = frozenset({"train.gpu", "predict.gpu"})
REPLICAS = frozenset({"endpoint.replica"})
KEEPER_GONE = "its keeper is gone"  # the reason where a replica was found without its keeper
_READY = f"replica.{ReplicaStatus.READY}"
_GONE = (f"replica.{ReplicaStatus.STOPPED}", f"replica.{ReplicaStatus.FAILED}")


def read(tenant: Tenant) -> Timesheet:
    """Every attempt and replica of a tenant that held something, with when and how much."""

    def owned(subjects: Iterable[str]) -> set[str]:
        rows = (model.objects.filter(tenant=tenant, public_id__in=subjects) for model in (Job, Endpoint))
        return {name for found in rows for name in found.values_list("public_id", flat=True)}

    return Timesheet(shifts=(*_attempts(tenant), *_replicas(tenant)), owned=owned)


def _attempts(tenant: Tenant) -> Iterator[Shift]:
    rows = Attempt.objects.filter(tenant=tenant).select_related("job").annotate(gpus=Count("gpu_leases"))
    for attempt in rows.only(
        "number", "processes", "created_at", "taken_at", "lease_until", "ended_at", "reason", "allocations",
        "job__public_id",
    ):  # fmt: skip
        first, last = _end_of(attempt)
        for meters, units in ((PROCESSES, attempt.processes), (GPUS, attempt.gpus)):
            yield Shift(
                name=f"{attempt.job.public_id} attempt {attempt.number}",
                meters=meters,
                units=units,  # 0 GPUs, too: nothing of them may be metered then
                allocations=frozenset(attempt.allocations),
                started_at=attempt.created_at,
                ended_from=first,
                ended_to=last,
            )


def _end_of(attempt: Attempt) -> tuple[datetime | None, datetime | None]:
    """When a place was given back. A holder that was lost is paid to its last sign of life: the renewal of the lease."""
    ended = attempt.ended_at
    if ended is None or attempt.reason != Reason.WORKER_LOST or ended < attempt.lease_until:
        return ended, ended
    # as long as the lease was when the place was given; the setting may have changed since
    lease_s = Allocation.objects.filter(pk__in=attempt.allocations).aggregate(longest=Max("lease_s"))[
        "longest"
    ]
    renewed = attempt.lease_until - timedelta(seconds=lease_s or 0)
    if attempt.taken_at is None or renewed <= attempt.taken_at:
        return attempt.created_at, renewed  # it was placed, perhaps taken, and never beat
    return renewed, renewed


def _replicas(tenant: Tenant) -> Iterator[Shift]:
    """From ready to gone, as the audit log has it: move() writes each change of a status there."""
    replicas = list(Replica.objects.filter(tenant=tenant).select_related("revision__endpoint"))
    if not replicas:
        return
    said = AuditEntry.objects.filter(tenant=tenant, action__in=[_READY, *_GONE])
    ready: dict[str, datetime] = {}
    gone: dict[str, tuple[datetime, bool]] = {}
    for name, action, at, details in said.values_list("target_id", "action", "at", "details"):
        if action == _READY:
            ready[name] = at
        else:
            gone[name] = at, details.get("reason") != KEEPER_GONE
    for replica in replicas:
        started = ready.get(replica.public_id)
        if started is None:
            continue  # it never answered, so it was free
        last, seen = gone.get(replica.public_id, (None, True))
        yield Shift(
            name=f"{replica.revision.endpoint.public_id} replica {replica.public_id}",
            meters=REPLICAS,
            units=1,
            allocations=frozenset(replica.allocations),
            started_at=started,
            # where its keeper died before it, nobody knows how long it lived
            ended_from=last if seen else started,
            ended_to=last,
        )
