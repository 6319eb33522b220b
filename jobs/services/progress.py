"""The one numbered stream of a job: what the engine says comes in, what live pages ask for goes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing.services import reports
from jobs.models import Attempt, Job, JobEvent
from jobs.models.jobs import Draft
from jobs.said import said
from jobs.states import JobStatus, Reason
from tenants import outbox
from tenants.actor import SYSTEM, Actor
from tenants.lifecycle import move
from trainer.contract import EVENTS_FILE, Event, EventKind, read_events

# what the engine's phases are called
PHASES = {
    "starting": gettext_lazy("Starting processes"),
    "training": gettext_lazy("Training"),
    "predicting": gettext_lazy("Predicting"),
    "evaluating": gettext_lazy("Evaluating"),
    "compressing": gettext_lazy("Compressing"),
    "exporting": gettext_lazy("Exporting"),
    "done": gettext_lazy("Done"),
    "cancelled": gettext_lazy("Stopped"),
    "preempted": gettext_lazy("Saved for later"),
}
BATCH = 500
FRAME = 500  # events in one answer to a live page
LONGEST_TEXT = 8000


class Fenced(Exception):
    """This attempt is over: somebody else decided so, and whoever writes late writes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a live page has not seen yet."""

    events: list[dict[str, Any]]
    last_seq: int
    job: dict[str, Any]
    more: bool
    ended: bool


def append(
    job: Job,
    kind: str,
    data: dict[str, Any],
    *,
    attempt: Attempt | None = None,
    source_seq: int | None = None,
) -> int:
    """Add one numbered event to the job's stream and wake its live pages; returns its number."""
    with transaction.atomic():
        draft = Draft(kind=kind, data=storable(data), source_seq=source_seq)
        last = JobEvent.objects.append(job, [draft], attempt=attempt)
        outbox.nudge(job.live_stream)
    return last


def ingest(attempt: Attempt, folder: Path) -> list[Event]:
    """Take in what the engine has written since the last call; each line once, in order, or Fenced."""
    events, offset = read_events(folder / EVENTS_FILE, attempt.events_offset)
    for start in range(0, len(events), BATCH):
        last = start + BATCH >= len(events)
        _take_in(attempt, events[start : start + BATCH], offset if last else attempt.events_offset)
    return events


def _take_in(attempt: Attempt, events: Sequence[Event], offset: int) -> None:
    with transaction.atomic():
        held = (
            Attempt.objects.select_for_update()
            .filter(pk=attempt.pk, fence=attempt.fence, ended_at=None)
            .first()
        )
        if held is None:
            raise Fenced
        job = Job.objects.get(pk=attempt.job_id)
        fresh = [event for event in events if event.seq > held.source_seq]
        if fresh:
            if job.status == JobStatus.STARTING:
                move(job, to=JobStatus.RUNNING, by=SYSTEM)
            drafts = [_draft(event) for event in fresh]
            JobEvent.objects.append(job, drafts, attempt=attempt)
            if changes := _standing(fresh):
                Job.objects.filter(pk=job.pk).update(**changes)
            outbox.nudge(job.live_stream)
        seen = max([held.source_seq, *(event.seq for event in fresh)])
        Attempt.objects.filter(pk=attempt.pk).update(source_seq=seen, events_offset=offset)
    attempt.source_seq, attempt.events_offset = seen, offset


def _draft(event: Event) -> Draft:
    return Draft(
        kind=str(event.kind),
        data=storable(event.data),
        at=datetime.fromisoformat(event.at),
        source_seq=event.seq,
    )


def _standing(events: Iterable[Event]) -> dict[str, Any]:
    """Where the run stands after these events, as columns of the job."""
    found: dict[str, Any] = {}
    for event in events:
        if event.kind is EventKind.PROGRESS:
            eta_s = event.data.get("eta_s")
            found |= {
                "step": int(event.data["step"]),
                "total_steps": int(event.data["total_steps"]),
                "epoch": int(event.data["epoch"]),
                "eta_s": eta_s if isinstance(eta_s, int | float) and math.isfinite(eta_s) else None,
            }
        elif event.kind is EventKind.STATE:
            found["phase"] = str(event.data["phase"])[:20]
            if found["phase"] != "training":
                found["eta_s"] = None
    return found


def storable(value: Any) -> Any:
    """What PostgreSQL can keep as JSON: no NUL, no NaN, no endless text."""
    if isinstance(value, str):
        return value.replace("\x00", "�")[:LONGEST_TEXT]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(storable(key)): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def event_row(event: JobEvent) -> dict[str, Any]:
    """One event as live pages and the API get it."""
    return {
        "seq": event.seq,
        "at": event.at.isoformat(),
        "kind": event.kind,
        "data": shown_data(event),
        "text": in_words(event),
    }


def shown_data(event: JobEvent) -> dict[str, Any]:
    """A change of status brings its words along; everything else is as the engine wrote it."""
    if event.kind != "status":
        return dict(event.data)
    status = JobStatus(event.data["status"])
    reason = Reason(event.data.get("reason", ""))
    return {**event.data, "label": str(status.label), "tone": status.tone, "text": str(reason.label)}


def in_words(event: JobEvent) -> str:
    """One line for people; empty for what is drawn instead."""
    data = event.data
    match event.kind:
        case "status":
            words = [str(JobStatus(data["status"]).label), str(Reason(data.get("reason", "")).label)]
            return ". ".join(word.rstrip(".") for word in words if word)
        case EventKind.STATE:
            return str(PHASES.get(data.get("phase", ""), data.get("phase", "")))
        case EventKind.LOG | EventKind.ERROR:
            return said(data.get("text"))
        case EventKind.CHECKPOINT:
            return _("Checkpoint at step %(step)s") % {"step": data.get("step")}
        case EventKind.VARIANT:
            return f"{data.get('name')}: {said(data.get('verdict'))}"
    return ""


def standing(job: Job) -> dict[str, Any]:
    """The job in one small dict: what the head of a live page shows."""
    return {
        "id": job.public_id,
        "status": job.status,
        "label": str(job.state.label),
        "tone": job.state.tone,
        "reason_text": said(job.error) or job.reason_text or said(job.waiting_for),
        "phase": str(PHASES.get(job.phase, job.phase)),
        "step": job.step,
        "total_steps": job.total_steps,
        "epoch": job.epoch,
        "eta_s": None if job.is_ended else job.eta_s,
        "elapsed_s": None if job.seconds_on_clock is None else round(job.seconds_on_clock, 1),
        "cost": f"{reports.cost_of(job.tenant, job.public_id):f}",
        "currency": settings.CURRENCY,
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "attempt": job.attempts.count(),
    }


def visible_job(actor: Actor, public_id: str) -> Job | None:
    """The job, if this actor may see it now."""
    return Job.objects.visible_to(actor).select_related("tenant").filter(public_id=public_id).first()


def news(actor: Actor, public_id: str, *, after: int, limit: int = FRAME) -> News | None:
    """Events after a number, in order, and where the job stands; None if the actor may not see it."""
    # the job before its events: whatever its row says, its events are there
    job = visible_job(actor, public_id)
    if job is None:
        return None
    rows = list(JobEvent.objects.filter(job=job, seq__gt=after).order_by("seq")[:limit])
    last = rows[-1].seq if rows else after
    return News(
        events=[event_row(row) for row in rows],
        last_seq=last,
        job=standing(job),
        more=last < job.last_seq,
        ended=job.is_ended and last >= job.last_seq,
    )
