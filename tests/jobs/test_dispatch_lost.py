"""Attempts that are lost, late, refused or raced: nothing runs twice and nothing is billed twice."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from billing.models import Allocation
from jobs import compute
from jobs.models import Attempt, Job, JobEvent
from jobs.services import dispatch, progress, shutdown
from jobs.services.dispatch import run_attempt, sweep_attempts, take
from jobs.services.jobs import cancel_job
from jobs.services.progress import Fenced
from jobs.services.run_files import run_folder
from jobs.services.schedule import schedule_once
from jobs.states import JobStatus, Reason
from tenants.http import actor_from_user
from tests import factories
from tests.jobs.dispatch_house import good_run, placed, run_with
from tests.jobs.factories_jobs import FakeCompute, make_job, make_version, spec_data
from trainer.contract import EVENTS_FILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def test_two_workers_get_one_message_each_and_one_of_them_runs(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        first, second = take(attempt.pk), take(attempt.pk)
    assert first is not None and second is None


def test_a_lost_lease_sends_the_job_back_and_bills_to_the_last_beat_only(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        take(attempt.pk)
        Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        assert sweep_attempts() == 1
        assert sweep_attempts() == 0
    job, attempt = attempt.job.reload(), attempt.reload()
    assert (job.status, attempt.reason) == (JobStatus.QUEUED, Reason.WORKER_LOST)
    allocation = Allocation.objects.get(pk=attempt.allocations[0])
    assert allocation.ended_at == allocation.last_beat_at
    assert attempt.public_id in fake.stopped


def test_a_late_writer_is_refused_and_writes_nothing(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        late = take(attempt.pk)
        folder = run_folder(late)
        folder.mkdir(parents=True)
        Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        sweep_attempts()
        line = {
            "seq": 1,
            "at": timezone.now().isoformat(),
            "kind": "metric",
            "data": {"step": 1, "name": "x", "value": 1},
        }
        (folder / EVENTS_FILE).write_text(json.dumps(line) + "\n")
        with pytest.raises(Fenced):
            progress.ingest(late, folder)
        before = JobEvent.objects.count()
        outcome = dispatch.Outcome(status=JobStatus.SUCCEEDED)
        assert dispatch.end_attempt(late, outcome, exit_code=0) is False
    assert JobEvent.objects.count() == before
    assert attempt.job.reload().status == JobStatus.QUEUED


def test_a_runner_that_lost_its_lease_kills_the_gang_and_leaves_the_job_alone(as_ben, flowers):
    def rescued(engine, turn):
        if turn == 1:
            engine.metric(1, 0.5)
        if turn == 3:
            Attempt.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
            sweep_attempts()
        return None

    job, attempt, fake = run_with(rescued, as_ben, flowers)
    assert job.status == JobStatus.QUEUED
    assert attempt.reason == Reason.WORKER_LOST
    assert attempt.public_id in fake.stopped


def test_the_next_attempt_goes_on_from_the_checkpoint(as_ben, flowers):
    def first(engine, turn):
        folder = engine.gang.folder / "checkpoints" / "step-5"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text("{}")
        engine.metric(1, 0.5)
        shutdown.worker_closes()
        return 75 if turn > 2 else None

    with compute.use(FakeCompute(first)) as fake:
        attempt = placed(as_ben, flowers, fake)
        run_attempt(attempt.pk)
        job = attempt.job.reload()
        assert (job.status, attempt.reload().reason) == (JobStatus.QUEUED, Reason.PREEMPTED)
        assert fake.signals, "the gang was asked to save and go"
        assert not (run_folder(attempt) / "data").exists(), "no data in clear is left while the job waits"
        shutdown.worker_opens()
        seen = []

        def second(engine, turn):
            seen.append((engine.gang.folder / "checkpoints" / "step-5" / "state.json").exists())
            return good_run(engine, turn)

        fake.script = second
        schedule_once()
        run_attempt(Attempt.objects.get(job=job, ended_at=None).pk)
    assert seen[0] is True
    assert job.reload().status == JobStatus.SUCCEEDED
    assert job.attempts.count() == 2
    assert not run_folder(attempt).exists()


def test_a_job_that_is_lost_five_times_fails_and_says_so(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        for _ in range(5):
            attempt = Attempt.objects.get(job=attempt.job, ended_at=None)
            take(attempt.pk)
            Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
            sweep_attempts()
            schedule_once()
    job = attempt.job.reload()
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.TOO_MANY_ATTEMPTS)


def test_a_place_that_no_worker_takes_is_given_back_and_tried_later(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        sweep_attempts()
        assert schedule_once() == 0
    job = attempt.job.reload()
    assert job.status == JobStatus.QUEUED
    assert job.waiting_for.startswith("no worker took it; trying again at")
    allocation = Allocation.objects.get(pk=attempt.reload().allocations[0])
    assert allocation.ended_at == allocation.started_at, "nobody pays for a place that was not used"


def test_a_stopping_job_whose_worker_died_is_cancelled_by_the_sweeper(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        cancel_job(as_ben, attempt.job)
        Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        sweep_attempts()
    assert attempt.job.reload().status == JobStatus.CANCELLED


def test_a_full_disk_fails_the_job_with_its_name(as_ben, flowers, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dispatch.datasets, "materialize", full)
    job, _, fake = run_with(good_run, as_ben, flowers)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.DISK_FULL)
    assert fake.started == []


def test_a_refused_publication_is_told_and_costs_the_job_nothing(as_ben, flowers, tenant):
    def demoted(engine, turn):
        as_ben.user.memberships.update(role="viewer")
        return good_run(engine, turn)

    job, _, _ = run_with(demoted, as_ben, flowers, publish_to="flowers")
    assert job.status == JobStatus.SUCCEEDED
    assert "not published to flowers" in job.events.filter(kind="log").last().data["text"]


def test_one_process_and_two_tenants_and_two_schedulers_make_one_attempt(db, tenant):
    actors = [actor_from_user(factories.make_user(f"{name}@example.org", tenant=one)) for name, one in
              (("ana", tenant), ("cy", factories.make_tenant("Elsewhere")))]  # fmt: skip
    with compute.use(FakeCompute(processes=1)):
        for actor in actors:
            make_job(actor, make_version(actor.tenant))
        together, counts = threading.Barrier(2), []

        def go() -> None:
            together.wait()
            counts.append(schedule_once())
            connection.close()

        threads = [threading.Thread(target=go) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert sorted(counts) == [0, 1]
    assert Attempt.objects.filter(ended_at=None).count() == 1
    assert Job.objects.queued().count() == 1


def test_the_folder_of_an_ended_job_is_gone_even_if_an_attempt_was_lost_before(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        take(attempt.pk)
        run_folder(attempt).mkdir(parents=True)
        Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        sweep_attempts()
        schedule_once()
        run_attempt(Attempt.objects.get(job=attempt.job, ended_at=None).pk)
    assert attempt.job.reload().status == JobStatus.SUCCEEDED
    assert not run_folder(attempt).exists()


def test_a_forgotten_run_folder_does_not_confuse_a_new_run(as_ben, flowers):
    with compute.use(FakeCompute(good_run)) as fake:
        attempt = placed(as_ben, flowers, fake)
        folder = run_folder(attempt)
        folder.mkdir(parents=True)
        (folder / EVENTS_FILE).write_text("rubbish\n")
        run_attempt(attempt.pk)
    assert attempt.job.reload().status == JobStatus.SUCCEEDED
    shutil.rmtree(folder, ignore_errors=True)


def test_spec_data_of_a_clone_is_a_right_spec(as_ben, flowers):
    job = make_job(as_ben, flowers)
    assert make_job(as_ben, flowers, **{k: v for k, v in job.spec.items() if k != "dataset"}).spec == job.spec
    assert spec_data(flowers)["dataset"] == flowers.public_id
