"""What a person does with jobs: ask what one would cost, submit it, cancel it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from billing.models import Allocation, UsageDay
from billing.services import budgets, prices, reports
from jobs.models import DatasetVersion, Job, JobEvent
from jobs.models.jobs import STATUS_KIND, Draft
from jobs.spec_labels import as_filter
from jobs.specs import JobSpec, Limits
from jobs.states import JobStatus, Reason
from tenants import audit, outbox
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, IllegalMove, Invalid
from tenants.lifecycle import move
from tenants.permissions import require
from trainer.contract import Recipe

# Rough seconds on one CPU core, from runs on a small machine: for a price range, never for a bill.
STARTUP_S = 8
PER_VARIANT_S = 2
PER_ROW_S = {
    Recipe.IMAGE: 60e-6,
    Recipe.TEXT: 120e-6,
    Recipe.READER: 1e-3,
    Recipe.TABULAR: 15e-6,
    Recipe.REGRESSION: 15e-6,
    Recipe.INTENT: 120e-6,
    Recipe.SENTIMENT: 120e-6,
    Recipe.RECOMMEND: 250e-6,
    Recipe.LANGUAGE: 4e-3,
}
PER_STEP_S = 1.5e-3
GPU_SPEED = 8
LABELLED = 500  # newest jobs whose labels are offered


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateLine:
    """One meter's part of an estimate."""

    meter: str
    title: str
    units: int
    rate: Decimal  # per natural unit
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job will cost: at least about `low`; never more than `high`, for there it is stopped."""

    low: Decimal
    high: Decimal
    currency: str
    low_s: int
    high_s: int
    lines: list[EstimateLine]


def estimate_job(actor: Actor, spec: JobSpec) -> Estimate:
    """The price range of a spec at today's prices."""
    require(actor, "jobs.submit")
    high_s = spec.limits.max_time_s
    low_s = min(high_s, round(likely_seconds(spec)))
    held = [("train.process", _("Training processes"), spec.resources.processes)]
    if spec.resources.gpus:
        held.append(("train.gpu", _("Training GPUs"), spec.resources.gpus))
    return price_range(actor, held, low_s=low_s, high_s=high_s, max_spend=spec.limits.max_spend)


def price_range(
    actor: Actor,
    held: Iterable[tuple[str, str, int]],
    *,
    counted: Iterable[tuple[str, str, int]] = (),
    low_s: int,
    high_s: int,
    max_spend: Decimal | None,
) -> Estimate:
    """What (meter, title, units) cost that are held so long, and those that are counted once."""
    times = [(one, low_s, high_s) for one in held] + [(one, 1, 1) for one in counted]
    lines = [
        EstimateLine(
            meter=meter,
            title=title,
            units=units,
            rate=prices.rate(meter, "standard", tenant=actor.tenant),
            low=prices.estimate(items=[(meter, "standard", units, least)], tenant=actor.tenant),
            high=prices.estimate(items=[(meter, "standard", units, most)], tenant=actor.tenant),
        )
        for (meter, title, units), least, most in times
    ]
    low, high = sum((one.low for one in lines), Decimal(0)), sum((one.high for one in lines), Decimal(0))
    if max_spend is not None:
        if max_spend < low:
            raise _below_estimate(low)
        high = min(high, max_spend)
    return Estimate(
        low=min(low, high), high=high, currency=settings.CURRENCY, low_s=low_s, high_s=high_s, lines=lines
    )


def _below_estimate(low: Decimal) -> Invalid:
    # the next step of the limit's own four places: what is named here is taken
    enough = low.quantize(Decimal("0.0001"), rounding=ROUND_UP)
    text = _(
        "This job costs at least about %(low)s %(currency)s; a limit below that would stop it before it is done. "
        "Set at least that, or ask for fewer epochs, rows or processes."
    )
    words = {"low": f"{enough:f}", "currency": settings.CURRENCY}
    return Invalid.at("/limits/max_spend", "below_estimate", text % words)


def likely_seconds(spec: JobSpec) -> float:
    """How long the run probably takes on this installation."""
    hyper = spec.hyperparameters
    rows = spec.version.row_count * (1 - hyper.holdout)
    per_row = PER_ROW_S[spec.recipe]
    if spec.recipe is Recipe.IMAGE:
        image = spec.version.profile.get("image") or {}
        side = min(64, max(8, min(image.get("width") or 8, image.get("height") or 8)))
        per_row *= side * side * (image.get("channels") or 1) / 64
    speed = spec.resources.gpus * GPU_SPEED or spec.resources.processes
    steps = max(1.0, rows / hyper.batch_size) * hyper.epochs
    training = rows * per_row / speed * hyper.epochs + steps * PER_STEP_S
    return STARTUP_S + training + PER_VARIANT_S * (1 + len(spec.compression.methods))


def submit_job(actor: Actor, spec: JobSpec) -> Job:
    """Put a job in line and wake the scheduler."""
    require(actor, "jobs.submit")
    estimate = estimate_job(actor, spec)
    return put_in_line(
        actor,
        spec.version,
        estimate,
        limits=spec.limits,
        name=spec.name,
        recipe=spec.recipe,
        spec=spec.to_dict(),
        processes=spec.resources.processes,
        gpus=spec.resources.gpus,
    )


def put_in_line(
    actor: Actor, version: DatasetVersion, estimate: Estimate, *, limits: Limits, **columns: Any
) -> Job:
    """The row of a job that somebody may and can pay for; its stream begins, and the scheduler wakes."""
    assert actor.tenant is not None
    budgets.ensure_can_spend(
        actor.tenant,
        high_estimate=estimate.high,
        user_label=actor.user.email if actor.user else "",
        labels=columns["spec"].get("labels"),
    )
    with transaction.atomic():
        # a dataset archived in the meantime is not taken any more
        version = (
            DatasetVersion.objects.select_for_update(of=("self",))
            .select_related("dataset")
            .get(pk=version.pk)
        )
        if version.dataset.archived_at is not None:
            raise Conflict(_("This dataset was archived a moment ago. Choose another one."))
        job = Job.objects.create(
            tenant=actor.tenant,
            created_by=actor.user,
            dataset_version=version,
            max_time_s=limits.max_time_s,
            max_spend=limits.max_spend,
            estimate_low=round(estimate.low, 6),
            estimate_high=round(estimate.high, 6),
            **columns,
        )
        draft = Draft(kind=STATUS_KIND, data={"status": JobStatus.QUEUED, "reason": "", "by": actor.label})
        JobEvent.objects.append(job, [draft])
        audit.record(actor, "job.submitted", job, dataset=version.public_id, recipe=job.recipe)
        outbox.enqueue("jobs.schedule_jobs")
    return job


def cancel_job(actor: Actor, job: Job, reason: Reason = Reason.BY_USER) -> Job:
    """Stop a job: at once while it waits, within seconds while it runs. Stopping twice is stopping once."""
    require(actor, "jobs.cancel", job)
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job.pk)
        if job.status == JobStatus.STOPPING:
            return job
        if job.is_ended:
            raise IllegalMove(_("This job has already ended: %(status)s.") % {"status": job.state.label})
        if job.status == JobStatus.QUEUED:
            end_job(job, to=JobStatus.CANCELLED, by=actor, reason=reason)
        else:
            ask_to_stop(job, by=actor, reason=reason)
    return job


def ask_to_stop(job: Job, *, by: Actor, reason: Reason) -> None:
    """Tell the holder of the running attempt to end it; the first who asks is the reason."""
    move(job, to=JobStatus.STOPPING, by=by, reason=reason, stop_reason=reason, stop_asked_at=timezone.now())


def end_job(job: Job, *, to: JobStatus, by: Actor, reason: Reason = Reason.NONE, error: str = "") -> None:
    """Move a job to its final status, with what the person should read. Inside the caller's transaction."""
    # move() has a `reason` of its own, so the column of that name is set beside it, under the same lock
    Job.objects.filter(pk=job.pk).update(reason=reason)
    job.reason = reason
    move(
        job,
        to=to,
        by=by,
        reason=reason,
        error=error[:4000],
        finished_at=timezone.now(),
        eta_s=None,
        waiting_for="",
    )
    outbox.enqueue("jobs.schedule_jobs")  # what it held is free


def requeue_job(job: Job, *, reason: Reason) -> None:
    """Put a job whose attempt was lost in line again; it goes on from its last checkpoint."""
    Job.objects.filter(pk=job.pk).update(reason=reason)
    job.reason = reason
    move(job, to=JobStatus.QUEUED, by=SYSTEM, reason=reason, eta_s=None, phase="")
    outbox.enqueue("jobs.schedule_jobs")


def costs_of(jobs: Iterable[Job]) -> dict[str, Decimal]:
    """{public id: cost up to now} of many jobs, in a handful of queries."""
    subjects = [job.public_id for job in jobs]
    found = dict.fromkeys(subjects, Decimal(0))
    for row, cost in reports.priced(UsageDay.objects.filter(subject__in=subjects), "subject"):
        found[row["subject"]] += cost
    held = Allocation.objects.open().filter(subject__in=subjects)
    for subject in set(held.values_list("subject", flat=True)):
        found[subject] += reports.unsettled(held.filter(subject=subject))
    return found


def known_labels(actor: Actor) -> list[str]:
    """Every `key=value` among the newest jobs the actor may see, in order: what a list is narrowed to."""
    newest = Job.objects.visible_to(actor).exclude(spec__labels={}).filter(spec__has_key="labels")
    specs = newest.order_by("-created_at").values_list("spec__labels", flat=True)[:LABELLED]
    return sorted({f"{key}={value}" for labels in specs for key, value in (labels or {}).items()})


def search_jobs(actor: Actor, *, text: str = "", label: str = "") -> Any:
    """Jobs the actor may see whose name, id or recipe holds the text and that have the label, newest first.

    `label` is `team=vision`, or `team` for any value of it. What no label can be finds nothing.
    """
    rows = Job.objects.visible_to(actor).select_related("created_by", "dataset_version__dataset", "tenant")
    if text := text.strip():
        rows = rows.filter(Q(name__icontains=text) | Q(public_id=text) | Q(recipe__icontains=text))
    if label := label.strip():
        wanted = as_filter(label)
        rows = rows.none() if wanted is None else rows.filter(**wanted)
    return rows.order_by("-created_at", "-id")
