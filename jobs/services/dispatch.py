"""Runs one attempt from its place to its end, and finds those whose worker was lost.

The holder of the lease does everything; whoever lost it kills the gang and writes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Sum
from django.db.models.expressions import ExpressionWrapper, F
from django.db.models.fields import DurationField
from django.db.models.functions import Now

from jobs.compute import Gang, Handle, backend
from jobs.models import Attempt, Job, ModelVersion
from jobs.services import datasets, endpoints, last_good, predictions, progress, registry, shutdown
from jobs.services.jobs import ask_to_stop, end_job, requeue_job
from jobs.services.lease import LeaseKeeper
from jobs.services.outcome import LastWords, Outcome, decide_outcome, log_tail
from jobs.services.progress import Fenced
from jobs.services.run_files import copy_whole, forget_runs, run_folder
from jobs.services.schedule import lost_too_often, release
from jobs.states import JOB_ON_MACHINES, JobKind, JobStatus, Reason
from tenants.actor import SYSTEM
from tenants.errors import DiskFull, IllegalMove, Refused
from tenants.http import actor_from_user
from trainer.contract import (
    CHECKPOINTS_DIR,
    COLUMNS,
    CONTROL_FILE,
    MANIFEST_FILE,
    RESULT_DIR,
    SPEC_FILE,
    CompressionSpec,
    DataSpec,
    EarlyStopping,
    HyperParameters,
    Method,
    Precision,
    Recipe,
    Resources,
    RunSpec,
    TrainingSpec,
)

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.3
LOOK_FIRST_S = 0.05  # until the first step is told: somebody is waiting to see it
CANCEL_GRACE_S = 6  # the engine stops at the next step; who asked must see it end within 10 s
PREEMPT_GRACE_S = 3  # a supervisor kills after 5 s


def run_attempt(attempt_id: int) -> None:
    """Take an attempt and see it through. Somebody else has it, or it is over: do nothing."""
    attempt = take(attempt_id)
    if attempt is None:
        return
    with shutdown.listening():
        _Run(attempt).go()


def take(attempt_id: int) -> Attempt | None:
    """Claim a placed attempt; one UPDATE decides between two workers."""
    free = Attempt.objects.filter(pk=attempt_id, taken_at=None, ended_at=None, lease_until__gt=Now())
    if not free.update(taken_at=Now(), lease_until=Now() + timedelta(seconds=settings.LEASE_S)):
        return None
    beside = ("job__tenant", "job__dataset_version", "job__created_by", "job__predictor__tenant")
    return Attempt.objects.select_related(*beside).get(pk=attempt_id)


def sweep_attempts() -> int:
    """End attempts whose lease ran out and put their jobs in line again; returns how many."""
    expired = Attempt.objects.filter(ended_at=None, lease_until__lt=Now()).values_list("pk", flat=True)
    return sum(_rescue(pk) for pk in list(expired))


class _Run:
    """One attempt while it is ours."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt, self.job = attempt, attempt.job
        self.folder = run_folder(attempt)
        self.predicts = self.job.kind == JobKind.PREDICTION
        self.compute = backend()
        self.words = LastWords()
        self.preempted = False
        self.stopping_since: float | None = None
        self.deadline = time.monotonic() + self._seconds_left()

    def go(self) -> None:
        keeper = LeaseKeeper(self.attempt, self.job)
        handle: Handle | None = None
        try:
            with keeper:
                try:
                    self.prepare()
                    if self.stop_asked() or shutdown.is_asked():
                        self.preempted = shutdown.is_asked()
                        code: int | None = None
                    else:
                        handle = self.start()
                        code = self.watch(handle, keeper)
                        self.compute.stop(handle, grace_s=0)  # ranks must not outlive their launcher
                        self.take_in()
                    self.finish(code)
                except Fenced:
                    log.warning("attempt fenced", extra={"attempt": self.attempt.public_id})
                except Exception as error:
                    self.fail(error)
        finally:
            # whatever happened above, nothing of the gang goes on without us
            self.compute.stop_run(self.attempt.public_id)
            self.clean_up()

    # -- before ----------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Write the run folder: data in clear, the spec, and the checkpoints of the attempt before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)
        for earlier in self.job.attempts.exclude(pk=self.attempt.pk).order_by("-number"):
            self.compute.stop_run(earlier.public_id)  # a paused gang of old must not write beside us
            checkpoints = run_folder(earlier) / CHECKPOINTS_DIR
            if checkpoints.is_dir() and not (self.folder / CHECKPOINTS_DIR).exists():
                copy_whole(checkpoints, self.folder / CHECKPOINTS_DIR)
        if self.predicts:
            predictions.lay_out(self.job, self.attempt, self.folder)
            return
        data = datasets.materialize(self.job.dataset_version, self.folder)
        (self.folder / SPEC_FILE).write_text(run_spec(self.job, self.attempt, data).to_json())

    def start(self) -> Handle:
        gpus = tuple(
            self.attempt.gpu_leases.filter(released_at=None).order_by("gpu").values_list("gpu", flat=True)
        )
        gang = Gang(
            run=self.attempt.public_id,
            folder=self.folder,
            spec=self.folder / SPEC_FILE,
            processes=self.attempt.processes,
            gpus=gpus,
            compiles=self.job.spec.get("training", {}).get("compile", "off") == "on",
            phase="predict" if self.predicts else "run",
        )
        handle = self.compute.start(gang)
        live = Attempt.objects.filter(pk=self.attempt.pk, fence=self.attempt.fence, ended_at=None)
        if not live.update(handle=handle):
            raise Fenced
        self.attempt.handle = handle
        log.info(
            "gang started", extra={"job": self.job.public_id, "processes": gang.processes, "gpus": len(gpus)}
        )
        return handle

    # -- during ----------------------------------------------------------------------------------------------
    def watch(self, handle: Handle, keeper: LeaseKeeper) -> int:
        """Until the gang has ended; returns its exit code."""
        while True:
            code = self.compute.poll(handle)
            if keeper.is_stale:
                raise Fenced
            try:
                self.take_in()
                self.obey(handle, keeper)
            except (OperationalError, InterfaceError):
                # the database is away for a moment; the run goes on as long as the lease may be ours
                log.warning("database away", extra={"attempt": self.attempt.public_id})
                connection.close()
            if code is not None:
                return code
            time.sleep(LOOK_EVERY_S if self.words.stepped else min(LOOK_FIRST_S, LOOK_EVERY_S))

    def take_in(self) -> None:
        self.words = self.words.after(progress.ingest(self.attempt, self.folder))

    def obey(self, handle: Handle, keeper: LeaseKeeper) -> None:
        """Do what a person, a limit or a shutdown asks."""
        if self.stopping_since is None:
            reason = Reason.TIME_LIMIT if time.monotonic() > self.deadline else keeper.stop_for
            if reason:
                self.ask_stop(reason)
            if self.stop_asked():
                self.stopping_since = time.monotonic()
                _write_aside(self.folder / CONTROL_FILE, json.dumps({"cancel": True}))
            elif shutdown.is_asked():
                self.preempted, self.stopping_since = True, time.monotonic()
                self.compute.signal(handle, signal.SIGTERM)
            return
        grace_s = PREEMPT_GRACE_S if self.preempted else CANCEL_GRACE_S
        if time.monotonic() - self.stopping_since > grace_s:
            self.compute.stop(handle, grace_s=0)

    def ask_stop(self, reason: Reason) -> None:
        with contextlib.suppress(IllegalMove):  # somebody asked a moment before
            ask_to_stop(Job.objects.get(pk=self.job.pk), by=SYSTEM, reason=reason)

    def stop_asked(self) -> bool:
        return Job.objects.filter(pk=self.job.pk, status=JobStatus.STOPPING).exists()

    def _seconds_left(self) -> float:
        """Of the job's time limit, over all its attempts: what was held is what is paid."""
        spent = (
            self.job.attempts.exclude(pk=self.attempt.pk)
            .exclude(ended_at=None)
            .aggregate(
                held=Sum(ExpressionWrapper(F("ended_at") - F("created_at"), output_field=DurationField()))
            )
        )["held"]
        return self.job.max_time_s - (spent.total_seconds() if spent else 0.0)

    # -- after -----------------------------------------------------------------------------------------------
    def finish(self, code: int | None) -> None:
        """Decide what became of it, keep the result, and end attempt, bill and job in one transaction."""
        job = Job.objects.get(pk=self.job.pk)
        result = self.folder / RESULT_DIR
        tail = log_tail(self.folder)
        outcome = decide_outcome(
            exit_code=-1 if code is None else code,
            words=self.words,
            finished=(result / MANIFEST_FILE).is_file(),
            stopped_for=Reason(job.stop_reason) if job.status == JobStatus.STOPPING else Reason.NONE,
            preempted=self.preempted,
            tail=tail,
        )
        if outcome.status is JobStatus.SUCCEEDED:
            outcome = self.keep_result(outcome, result)
        elif outcome.reason is Reason.DIVERGED:
            self.keep_weights(result)
        elif outcome.status is JobStatus.FAILED and not self.words.reason and tail:
            self.say("error", tail)
        elif outcome.reason is Reason.KILLED and not self.words.reason:
            self.say("error", outcome.error)
        self.end(outcome, code)

    def keep_result(self, outcome: Outcome, result: Path) -> Outcome:
        if self.predicts:
            predictions.keep_predictions(self.job, attempt=self.attempt, result_dir=result)
            return outcome
        version = registry.register_run(self.job, attempt=self.attempt, result_dir=result)
        if version is None:
            return Outcome(
                status=JobStatus.FAILED, reason=Reason.CRASHED, error="The run left no usable result."
            )
        if slug := self.job.spec.get("publish_to"):
            self.publish(version, slug)
        return outcome

    def keep_weights(self, result: Path) -> None:
        """The newest weights that were numbers; without room for them, the reason is still the loss."""
        try:
            last_good.keep_last_good(self.job, result_dir=result)
        except (DiskFull, OSError) as error:
            self.say("warning", f"The last good weights could not be kept: {error}")

    def publish(self, version: ModelVersion, slug: str) -> None:
        """With the rights its submitter has today; a refusal is told and costs the job nothing."""
        try:
            actor = actor_from_user(self.job.created_by, tenant=self.job.tenant)
            endpoint = endpoints.publish_endpoint(actor, name=slug, version=version, slug=slug)
            self.say("info", f"Published to endpoint {endpoint.slug}.")
        except Refused as refusal:
            self.say("warning", f"The model was not published to {slug}: {refusal.detail}")

    def say(self, level: str, text: str) -> None:
        progress.append(self.job, "log", {"level": level, "text": text}, attempt=self.attempt)

    def fail(self, error: Exception) -> None:
        """Something of ours broke. A full disk or a refusal is the answer; anything else is tried again."""
        log.exception("attempt broke", extra={"attempt": self.attempt.public_id})
        text = str(error) or type(error).__name__
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            outcome = Outcome(status=JobStatus.FAILED, reason=Reason.DISK_FULL, error=text)
        elif isinstance(error, Refused):
            outcome = Outcome(status=JobStatus.FAILED, reason=Reason.CRASHED, error=error.detail)
        else:
            outcome = Outcome(status=None, reason=Reason.WORKER_LOST, error=text)
        if isinstance(error, OperationalError | InterfaceError):
            connection.close()
        self.compute.stop_run(self.attempt.public_id)
        self.end(outcome, None)

    def end(self, outcome: Outcome, code: int | None) -> None:
        end_attempt(self.attempt, outcome, exit_code=code)

    def clean_up(self) -> None:
        """Data in clear goes at once; checkpoints stay until the job has ended."""
        if Job.objects.ended().filter(pk=self.job.pk).exists():
            forget_runs(self.job)
            return
        for path in self.folder.glob("*"):
            if path.name == CHECKPOINTS_DIR:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def end_attempt(
    attempt: Attempt, outcome: Outcome, *, exit_code: int | None, at_last_beat: bool = False
) -> bool:
    """End attempt, bill and job in one transaction; False, and nothing written, if the attempt was over."""
    with transaction.atomic():
        if not release(attempt, exit_code=exit_code, reason=outcome.reason, at_last_beat=at_last_beat):
            return False
        job = Job.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=attempt.job_id)
        if job.status not in JOB_ON_MACHINES:
            return True
        if outcome.status is None and job.status == JobStatus.STOPPING:
            asked = Reason(job.stop_reason)
            outcome = Outcome(status=asked.final_status, reason=asked)
        if outcome.status is None and not lost_too_often(job, outcome.reason):
            requeue_job(job, reason=outcome.reason)
        elif outcome.status is None and outcome.reason is not Reason.WORKER_LOST:
            end_job(job, to=JobStatus.FAILED, by=SYSTEM, reason=outcome.reason, error=outcome.error)
        elif outcome.status is None:
            text = f"{Reason.TOO_MANY_ATTEMPTS.label} {outcome.error}".strip()
            end_job(job, to=JobStatus.FAILED, by=SYSTEM, reason=Reason.TOO_MANY_ATTEMPTS, error=text)
        else:
            if job.status == JobStatus.STARTING and outcome.status is JobStatus.SUCCEEDED:
                raise IllegalMove("A run that never spoke cannot have succeeded.")
            end_job(job, to=outcome.status, by=SYSTEM, reason=outcome.reason, error=outcome.error)
    return True


def _rescue(attempt_id: int) -> bool:
    """End one attempt whose lease ran out. Its bill ends at its last acknowledged beat."""
    with transaction.atomic():
        attempt = (
            Attempt.objects.select_for_update()
            .filter(pk=attempt_id, ended_at=None, lease_until__lt=Now())
            .first()
        )
        if attempt is None:
            return False  # its holder renewed it, or somebody else was here
        text = "" if attempt.taken_at else "No worker took it."
        outcome = Outcome(status=None, reason=Reason.WORKER_LOST, error=text)
        end_attempt(attempt, outcome, exit_code=None, at_last_beat=True)
    log.warning("attempt lost", extra={"attempt": attempt.public_id, "taken": attempt.taken_at is not None})
    if attempt.handle:
        backend().stop(attempt.handle, grace_s=0)
    backend().stop_run(attempt.public_id)
    if Job.objects.ended().filter(pk=attempt.job_id).exists():
        forget_runs(Job.objects.get(pk=attempt.job_id))
    return True


def run_spec(job: Job, attempt: Attempt, data: dict[str, str]) -> RunSpec:
    """The job's spec as the engine reads it."""
    spec = job.spec
    columns, resources, compression = spec["columns"], spec["resources"], spec["compression"]
    return RunSpec(
        run_id=attempt.public_id,
        recipe=Recipe(spec["recipe"]),
        data=DataSpec(
            path=data["path"],
            format=data["format"],
            features=tuple(columns["features"]),
            **{role: columns.get(role) or None for role in COLUMNS},
        ),
        hyperparameters=HyperParameters(**spec["hyperparameters"]),
        resources=Resources(
            # what was asked for, not what the attempt got: the pieces of a batch stay the same
            processes=job.processes,
            min_processes=resources.get("min_processes"),
            gpus=attempt.processes if resources["gpus"] else 0,
            precision=Precision(resources["precision"]),
        ),
        training=training_spec(spec.get("training", {})),
        compression=CompressionSpec(
            methods=tuple(Method(name) for name in compression["methods"]),
            max_accuracy_drop=compression["max_accuracy_drop"],
            sparsity=compression["sparsity"],
        ),
    )


def training_spec(stored: dict[str, Any]) -> TrainingSpec:
    """The section `training` of a stored spec; an older one has none."""
    early = stored.get("early_stopping")
    return TrainingSpec(**{**stored, "early_stopping": EarlyStopping(**early) if early else None})


def _write_aside(path: Path, text: str) -> None:
    """Whole or not at all: the engine reads this file while it runs."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)
