"""Puts jobs on machines: one writer at a time decides, and everything a place needs is written at once."""

from __future__ import annotations

import secrets
from collections import Counter
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from billing import clock
from billing.errors import BudgetReached
from billing.services import budgets, locks, metering, prices
from jobs.compute import backend
from jobs.models import Attempt, GpuLease, Job
from jobs.scheduling import Capacity, Decision, Demand, Holding, Quota, decide
from jobs.states import MOST_TRIES, JobKind, JobStatus, Reason
from tenants import outbox, quotas
from tenants.actor import SYSTEM
from tenants.errors import IllegalMove, Invalid
from tenants.lifecycle import move
from tenants.models import Tenant

HELD_S = 900  # what this long costs is set aside when a job is placed; its beats use it up
_ONE_WRITER = 0x7A0B  # our advisory lock
UNTAKEN_BACKOFF_S = 15
UNTAKEN_LONGEST_S = 300


def schedule_once() -> int:
    """Place every job that fits now and tell the others why they wait; returns how many started."""
    capacity = backend().capacity()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", [_ONE_WRITER])
        queue = {
            job.pk: job for job in Job.objects.queued().select_related("tenant", "created_by").order_by("id")
        }
        if not queue:
            return 0
        now = clock.now()
        decisions = decide(
            [_demand(job) for job in queue.values()],
            _held(capacity),
            capacity,
            {job.tenant_id: _quota(job.tenant) for job in queue.values()},
            now,
        )
        return sum(_carry_out(decision, queue[decision.job], capacity) for decision in decisions)


def _carry_out(decision: Decision, job: Job, capacity: Capacity) -> bool:
    wait = decision.waiting_for
    if decision.place:
        try:
            _place(job, decision, capacity)
            return True
        except (BudgetReached, Invalid) as refusal:  # Invalid: a meter has no price today
            wait = refusal.detail
        except IllegalMove:  # cancelled while we decided
            return False
    wait = wait[:200]
    if job.waiting_for != wait and Job.objects.queued().filter(pk=job.pk).update(waiting_for=wait):
        outbox.nudge(job.live_stream)
    return False


@transaction.atomic
def _place(job: Job, decision: Decision, capacity: Capacity) -> None:
    """Attempt, hold, bill and status in one transaction: a place is whole or does not exist."""
    fence = secrets.token_hex(16)
    moment = clock.now()
    attempt = Attempt.objects.create(
        tenant=job.tenant,
        job=job,
        number=job.attempts.count() + 1,
        fence=fence,
        processes=decision.processes,
        lease_until=moment + timedelta(seconds=settings.LEASE_S),
        created_at=moment,
    )
    GpuLease.objects.bulk_create(
        [GpuLease(attempt=attempt, node=capacity.node, gpu=gpu) for gpu in sorted(decision.gpus)]
    )
    process = "predict.process" if job.kind == JobKind.PREDICTION else "train.process"
    held = [(process, decision.processes)]
    if decision.gpus:
        held.append(("train.gpu", len(decision.gpus)))
    user_label = job.created_by.email if job.created_by else ""
    labels = job.spec.get("labels") or {}
    first = [(meter, "standard", units, HELD_S) for meter, units in held]
    hold = budgets.reserve(
        job.tenant,
        source=attempt.public_id,
        amount=min(job.estimate_high, prices.estimate(items=first, tenant=job.tenant)),
        high_estimate=job.estimate_high,
        user_label=user_label,
        labels=labels,
    )
    attempt.allocations = [
        metering.open_allocation(
            job.tenant,
            meter=meter,
            sku="standard",
            units=units,
            subject=job.public_id,
            subject_title=job.name,
            user_label=user_label,
            labels=labels,
            fence=fence,
            lease_s=settings.LEASE_S,
            hold=hold,
        ).pk
        for meter, units in held
    ]
    attempt.save(update_fields=["allocations"])
    move(
        job,
        to=JobStatus.STARTING,
        by=SYSTEM,
        started_at=job.started_at or moment,
        waiting_for="",
        phase="",
        error="",
    )
    outbox.enqueue("jobs.run_attempt", attempt.pk)


def _held(capacity: Capacity) -> list[Holding]:
    gpus: dict[int, list[int]] = {}
    for lease in GpuLease.objects.filter(released_at=None, node=capacity.node):
        gpus.setdefault(lease.attempt_id, []).append(lease.gpu)
    return [
        Holding(tenant=attempt.tenant_id, processes=attempt.processes, gpus=tuple(gpus.get(attempt.pk, ())))
        for attempt in Attempt.objects.filter(ended_at=None).only("tenant_id", "processes")
    ]


def _demand(job: Job) -> Demand:
    return Demand(
        job=job.pk,
        tenant=job.tenant_id,
        processes=job.processes,
        gpus=job.gpus,
        min_processes=job.spec.get("resources", {}).get("min_processes"),
        since=job.created_at,
        ready_at=_ready_at(job),
    )


def _ready_at(job: Job) -> datetime | None:
    """After tries that no worker took, wait longer each time: there is probably no worker at all."""
    untaken = list(job.attempts.filter(taken_at=None).exclude(ended_at=None).order_by("number"))
    last = job.attempts.order_by("-number").first()
    if not untaken or last is None or untaken[-1].pk != last.pk or last.ended_at is None:
        return None
    wait_s = min(UNTAKEN_LONGEST_S, UNTAKEN_BACKOFF_S * 2 ** min(len(untaken) - 1, 8))
    return last.ended_at + timedelta(seconds=wait_s)


def _quota(tenant: Tenant) -> Quota:
    return Quota(processes=quotas.limit_of(tenant, "processes"), gpus=quotas.limit_of(tenant, "gpus"))


def release(attempt: Attempt, *, exit_code: int | None, reason: Reason, at_last_beat: bool) -> bool:
    """End an attempt and give back what it holds, once; False if it was over already. In a transaction."""
    # a wait at the gate of billing comes first: between the end that is written and the end that is billed there is none
    locks.pass_with_usage(attempt.tenant_id)
    live = Attempt.objects.filter(pk=attempt.pk, fence=attempt.fence, ended_at=None)
    if not live.update(ended_at=Now(), exit_code=exit_code, reason=reason):
        return False
    for allocation in attempt.allocations:
        if at_last_beat:
            metering.close_at_last_beat(allocation, reason=reason)
        else:
            metering.close_allocation(allocation, fence=attempt.fence, reason=reason or "done")
    GpuLease.objects.filter(attempt=attempt, released_at=None).update(released_at=Now())
    return True


def lost_too_often(job: Job, reason: Reason) -> bool:
    """Whether this job's tries ended so often for this reason that another would only burn money."""
    if reason not in MOST_TRIES:
        return False
    reasons = Counter(job.attempts.exclude(taken_at=None).values_list("reason", flat=True))
    return reasons[reason] >= MOST_TRIES[reason]
