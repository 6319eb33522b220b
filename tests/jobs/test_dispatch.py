"""One attempt from its place to its end, without real processes: a double plays the engine."""

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
from jobs.models import Attempt, Job, JobEvent, ModelVersion
from jobs.services import dispatch, progress, shutdown
from jobs.services.dispatch import run_attempt, run_folder, sweep_attempts, take
from jobs.services.jobs import cancel_job
from jobs.services.progress import Fenced
from jobs.services.schedule import schedule_once
from jobs.states import JobStatus, Reason
from tenants.http import actor_from_user
from tests import factories
from tests.jobs.factories_jobs import FakeCompute, make_job, make_version, spec_data, upload_flowers
from trainer.contract import EVENTS_FILE, EventKind

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(settings, monkeypatch):
    settings.BEAT_S = 0.2
    monkeypatch.setattr(dispatch, "LOOK_EVERY_S", 0.02)
    yield
    shutdown.worker_opens()


@pytest.fixture
def flowers(as_ben):
    return upload_flowers(as_ben)


def placed(actor, version, fake, **changes) -> Attempt:
    job = make_job(actor, version, **changes)
    assert schedule_once() >= 1
    return Attempt.objects.select_related("job").get(job=job, ended_at=None)


def run_with(script, actor, version, **changes) -> tuple[Job, Attempt, FakeCompute]:
    with compute.use(FakeCompute(script)) as fake:
        attempt = placed(actor, version, fake, **changes)
        run_attempt(attempt.pk)
    return attempt.job.reload(), attempt.reload(), fake


def kinds(job: Job) -> list[str]:
    return list(job.events.values_list("kind", flat=True))


def write_result(engine, original: dict | None = None) -> None:
    """A manifest with one variant and its bundle, as small as the registry takes it."""
    result = engine.gang.folder / "result"
    bundle = result / "original"
    bundle.mkdir(parents=True)
    (bundle / "model.onnx").write_bytes(b"graph")
    (bundle / "model.safetensors").write_bytes(b"weights")
    classes = ["setosa", "virginica"]
    (bundle / "bundle.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "recipe": "tabular-classification",
                "variant": "original",
                "classes": classes,
                "inputs": [{"name": "petal", "datatype": "FP32", "shape": [-1]}],
                "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
                "transform": {},
                "sha256": {},
                "sample": {"petal": [1.0]},
            }
        )
    )
    report = {
        "name": "original", "method": "As trained.", "size_bytes": 5, "compressed_size_bytes": 5,
        "accuracy": 0.9,
        "accuracy_drop": 0.0, "holdout_rows": 12, "latency_p50_ms": 0.1, "latency_p95_ms": 0.2,
        "max_abs_difference": 0.0, "passed_gate": True, "verdict": "The original.",
    }  # fmt: skip
    manifest = {
        "recipe": "tabular-classification", "chosen": "original", "variants": [report], "classes": classes,
        "baseline_accuracy": 0.5, "rows_trained": 48, "steps": 10, "machine": "a double",
    }  # fmt: skip
    (result / "manifest.json").write_text(json.dumps(manifest))


def good_run(engine, turn):
    if turn == 1:
        engine.say(EventKind.STATE, phase="training")
        for step in range(1, 11):
            engine.metric(step, 1 / step)
        engine.say(EventKind.PROGRESS, step=10, total_steps=10, epoch=1, eta_s=0.0)
        return None
    write_result(engine)
    engine.say(EventKind.STATE, phase="done")
    return 0


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

    # a process costs 0.06 an hour: this is reached in about a third of a second
    job, _, _ = run_with(endless, as_ben, flowers, limits={"max_spend": "0.0001"})
    assert job.status == JobStatus.CANCELLED
    assert job.reason == Reason.SPEND_LIMIT


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
