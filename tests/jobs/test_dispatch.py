"""One attempt from its place to its end, without real processes: a double plays the engine."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from billing.models import Allocation
from jobs import compute
from jobs.models import Attempt, Job, ModelVersion
from jobs.services import dispatch
from jobs.services.dispatch import run_attempt, take
from jobs.services.jobs import cancel_job
from jobs.services.run_files import run_folder
from jobs.services.schedule import schedule_once
from jobs.states import JobStatus, Reason
from tests.jobs.dispatch_house import good_run, kinds, placed, run_with
from tests.jobs.factories_jobs import FakeCompute
from trainer.contract import EventKind

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def test_a_good_run_ends_with_a_model_a_closed_bill_and_an_empty_folder(as_ben, flowers):
    job, attempt, fake = run_with(good_run, as_ben, flowers)
    assert (job.status, job.reason, job.error) == (JobStatus.SUCCEEDED, "", "")
    assert (job.step, job.total_steps, job.phase) == (10, 10, "done")
    assert attempt.exit_code == 0 and attempt.ended_at is not None
    assert Allocation.objects.get(pk=attempt.allocations[0]).ended_at is not None
    assert ModelVersion.objects.get(job=job).is_chosen
    assert not run_folder(attempt).exists()
    assert attempt.public_id in fake.stopped, "ranks must not outlive their launcher"


def test_the_engine_gets_the_spec_and_the_good_rows_in_clear(as_ben, flowers):
    seen = {}

    def look(engine, turn):
        folder = engine.gang.folder
        seen["spec"] = json.loads((folder / "spec.json").read_text())
        seen["rows"] = (folder / "data" / "table.csv").read_text().splitlines()
        seen["mode"] = folder.stat().st_mode & 0o777
        return good_run(engine, turn)

    _, attempt, fake = run_with(look, as_ben, flowers, hyperparameters={"epochs": 3})
    assert seen["spec"]["run_id"] == attempt.public_id
    assert seen["spec"]["hyperparameters"]["epochs"] == 3
    assert len(seen["rows"]) == 61
    assert seen["mode"] == 0o700
    assert fake.started[0].processes == 1


def test_every_event_gets_one_number_and_is_taken_in_once(as_ben, flowers):
    job, attempt, _ = run_with(good_run, as_ben, flowers)
    numbers = list(job.events.values_list("seq", flat=True))
    assert numbers == list(range(1, job.last_seq + 1))
    assert kinds(job).count("metric") == 10
    sources = list(
        job.events.filter(attempt=attempt, source_seq__isnull=False).values_list("source_seq", flat=True)
    )
    assert sources == list(range(1, 14))


def test_a_failure_shows_what_the_engine_said_last(as_ben, flowers):
    def diverge(engine, turn):
        engine.say(EventKind.ERROR, reason="diverged", text="The loss became nan at step 3.", traceback="...")
        return 1

    job, attempt, _ = run_with(diverge, as_ben, flowers)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.DIVERGED)
    assert job.error == "The loss became nan at step 3."
    assert attempt.exit_code == 1


def test_a_silent_crash_shows_the_end_of_the_log(as_ben, flowers):
    def crash(engine, turn):
        (engine.gang.folder / "engine.log").write_text(
            "Traceback\n  File x\nModuleNotFoundError: No module named y\n---\n"
        )
        return 1

    job, _, _ = run_with(crash, as_ben, flowers)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.CRASHED)
    assert job.error == "ModuleNotFoundError: No module named y"
    assert "Traceback" in job.events.filter(kind="log").last().data["text"]


def test_a_run_that_ends_well_without_a_result_has_failed(as_ben, flowers):
    job, _, _ = run_with(lambda engine, turn: 0, as_ben, flowers)
    assert (job.status, job.error) == (JobStatus.FAILED, "The engine ended without a result.")


def test_nul_and_nan_in_an_event_do_not_break_the_stream(as_ben, flowers):
    def odd(engine, turn):
        engine.say(EventKind.LOG, level="info", text="a\x00b")
        engine.say(EventKind.METRIC, step=1, name="x", value=float("nan"))
        return good_run(engine, turn + 1)

    job, _, _ = run_with(odd, as_ben, flowers)
    assert job.status == JobStatus.SUCCEEDED
    assert job.events.get(kind="log").data["text"] == "a�b"


def test_cancel_asks_first_and_then_kills(as_ben, flowers, monkeypatch):
    monkeypatch.setattr(dispatch, "CANCEL_GRACE_S", 0.3)
    asked = []

    def stubborn(engine, turn):
        if turn == 1:
            engine.metric(1, 0.5)
        if turn == 3:
            cancel_job(as_ben, Job.objects.get())
        asked.append(engine.is_cancelled)
        return None

    job, attempt, _ = run_with(stubborn, as_ben, flowers)
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.BY_USER)
    assert True in asked, "the engine was asked before it was killed"
    assert Allocation.objects.get(pk=attempt.allocations[0]).ended_at is not None


def test_a_run_that_finishes_while_it_is_stopped_has_succeeded(as_ben, flowers):
    def finishing(engine, turn):
        if turn == 1:
            good_run(engine, 1)
            return None
        cancel_job(as_ben, Job.objects.get())
        return good_run(engine, 2)

    job, _, _ = run_with(finishing, as_ben, flowers)
    assert job.status == JobStatus.SUCCEEDED


def test_a_job_cancelled_before_a_worker_took_it_never_starts(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        cancel_job(as_ben, attempt.job)
        run_attempt(attempt.pk)
    assert fake.started == []
    assert attempt.job.reload().status == JobStatus.CANCELLED


def test_the_time_limit_ends_a_run(as_ben, flowers):
    def endless(engine, turn):
        if turn == 1:
            engine.metric(1, 0.5)
            Attempt.objects.create(  # an earlier try used up what the job may take
                tenant=as_ben.tenant, job=Job.objects.get(), number=9, fence="old", processes=1,
                lease_until=timezone.now(), ended_at=timezone.now(),
                created_at=timezone.now() - timedelta(seconds=20),
            )  # fmt: skip
        return 76 if engine.is_cancelled else None

    with compute.use(FakeCompute(endless)) as fake:
        attempt = placed(as_ben, flowers, fake, limits={"max_time_s": 10})
        run = dispatch._Run(take(attempt.pk))
        run.deadline = 0
        run.go()
    job = attempt.job.reload()
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.TIME_LIMIT)


def test_earlier_attempts_count_against_the_time_limit(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake, limits={"max_time_s": 100})
        now = timezone.now()
        Attempt.objects.create(
            tenant=as_ben.tenant, job=attempt.job, number=9, fence="old", processes=1,
            lease_until=now, created_at=now - timedelta(seconds=40), ended_at=now,
        )  # fmt: skip
        assert dispatch._Run(take(attempt.pk))._seconds_left() == pytest.approx(60, abs=1)


def test_the_spend_limit_ends_a_run(as_ben, flowers):
    def endless(engine, turn):
        if turn == 1:
            engine.metric(1, 0.5)
        return 76 if engine.is_cancelled else None

    with compute.use(FakeCompute(endless)) as fake:
        attempt = placed(as_ben, flowers, fake)
        # a process costs 0.06 an hour: this is reached in seconds; so low a limit is not taken with a spec
        Job.objects.update(max_spend=Decimal("0.0001"))
        run_attempt(attempt.pk)
    job = attempt.job.reload()
    assert job.status == JobStatus.CANCELLED
    assert job.reason == Reason.SPEND_LIMIT


def test_an_elastic_job_that_got_fewer_processes_pays_for_those_and_keeps_its_batches(as_ben, flowers):
    """The engine is told how many were asked for: so many pieces each batch has, whoever learns them."""
    seen = {}

    def look(engine, turn):
        seen["spec"] = json.loads((engine.gang.folder / "spec.json").read_text())
        return good_run(engine, turn)

    with compute.use(FakeCompute(look, processes=2)) as fake:
        busy = placed(as_ben, flowers, fake)
        attempt = placed(as_ben, flowers, fake, resources={"processes": 2, "min_processes": 1})
        run_attempt(attempt.pk)
    assert attempt.processes == fake.started[0].processes == 1
    assert seen["spec"]["resources"]["processes"] == 2
    assert [Allocation.objects.get(pk=pk).units for pk in attempt.allocations] == [1]
    assert busy.ended_at is None


def test_an_elastic_job_grows_again_at_its_next_attempt(as_ben, flowers):
    resources = {"processes": 2, "min_processes": 1}
    with compute.use(FakeCompute(lambda engine, turn: -9, processes=2)) as fake:
        busy = placed(as_ben, flowers, fake)
        first = placed(as_ben, flowers, fake, resources=resources)
        run_attempt(first.pk)
        cancel_job(as_ben, busy.job)
        run_attempt(busy.pk)
        assert schedule_once() == 1
        second = Attempt.objects.get(job=first.job, ended_at=None)
    assert (first.processes, second.processes) == (1, 2)
