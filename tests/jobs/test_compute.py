"""Real processes: the engine as a gang on this machine, its end, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.db import connection

from jobs.compute import LOST, Gang
from jobs.compute.local import MARK, LocalCompute, _members, environment
from jobs.models import Attempt, Job, ModelVersion
from jobs.services import shutdown
from jobs.services.dispatch import run_attempt
from jobs.services.jobs import cancel_job, costs_of
from jobs.services.run_files import run_folder
from jobs.services.schedule import schedule_once
from jobs.states import JobStatus, Reason
from tests.jobs.factories_jobs import make_job, upload_digits
from tests.trainer.helpers import digits_run, wait_for

QUICK = {"methods": []}


def marked(run: str) -> list[psutil.Process]:
    return _members(run, None)


def test_a_training_process_is_given_no_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("TAUON_SECRET_KEY", "do not tell")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do not tell")
    given = environment(Gang(run="att_1", folder=tmp_path, spec=tmp_path / "spec.json", processes=1))
    assert "do not tell" not in given.values()
    assert "DATABASE_URL" not in given and "REDIS_URL" not in given
    assert given["HOME"] == str(tmp_path)
    assert given["CUDA_VISIBLE_DEVICES"] == ""


def test_a_gang_sees_its_own_gpus_only(tmp_path):
    gang = Gang(run="att_1", folder=tmp_path, spec=tmp_path / "spec.json", processes=2, gpus=(1, 3))
    assert environment(gang)["CUDA_VISIBLE_DEVICES"] == "1,3"


def test_another_process_with_the_same_number_is_never_killed():
    compute = LocalCompute()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        created = psutil.Process(bystander.pid).create_time()
        handle = {
            "node": compute.capacity().node,
            "run": "att_gone",
            "pid": bystander.pid,
            "created": created - 60,
        }
        compute.signal(handle, signal.SIGKILL)
        compute.stop(handle, grace_s=0.1)
        assert compute.poll(handle) == LOST
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_stubborn_gang_and_its_grandchildren_are_gone_in_time(tmp_path, monkeypatch):
    script = tmp_path / "stubborn.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if sys.argv[1:] != ["leaf"]:
            # in a session of its own, as torch elastic starts its ranks
            subprocess.Popen([sys.executable, __file__, "leaf"], start_new_session=True)
        time.sleep(600)
        """)
    )
    compute = LocalCompute(warm=False)
    monkeypatch.setattr(compute, "command", lambda gang: [sys.executable, str(script)])
    handle = compute.start(Gang(run="att_stubborn", folder=tmp_path, spec=script, processes=1))
    wait_for(lambda: len(marked("att_stubborn")) == 2, what="both processes")
    began = time.monotonic()
    compute.stop(handle, grace_s=1)
    assert marked("att_stubborn") == []
    assert time.monotonic() - began < 5
    assert compute.poll(handle) is not None


def test_a_gang_dies_with_the_worker_that_started_it(tmp_path):
    (tmp_path / "sleep.py").write_text("import time; time.sleep(600)")
    worker = tmp_path / "worker.py"
    worker.write_text(
        textwrap.dedent(f"""
        import os, sys, time, pathlib
        import django; django.setup()
        from jobs.compute import Gang
        from jobs.compute.local import LocalCompute
        compute = LocalCompute(warm=False)
        compute.command = lambda gang: [sys.executable, {str(tmp_path / "sleep.py")!r}]
        folder = pathlib.Path({str(tmp_path)!r})
        gang = Gang(run="att_leashed", folder=folder, spec=folder, processes=1)
        print(compute.start(gang)["pid"], flush=True)
        time.sleep(600)
        """)
    )
    env = {**os.environ, "PYTHONPATH": str(settings.BASE_DIR), "DJANGO_SETTINGS_MODULE": "console.settings"}
    running = subprocess.Popen([sys.executable, str(worker)], env=env, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    int(running.stdout.readline())
    wait_for(lambda: marked("att_leashed"), what="the gang")
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    wait_for(lambda: not marked("att_leashed"), timeout_s=5, what="the gang's end")


@pytest.mark.slow
def test_two_processes_train_and_end_well_under_torchrun(tmp_path):
    spec = digits_run(tmp_path / "att_two", images=200, processes=2, epochs=1)
    compute = LocalCompute(warm=False)
    handle = compute.start(Gang(run="att_two", folder=spec.parent, spec=spec, processes=2))
    ranks = wait_for(lambda: len(marked("att_two")) >= 3 and marked("att_two"), what="agent and two ranks")
    assert all(process.environ()[MARK] == "att_two" for process in ranks)
    code = wait_for(lambda: compute.poll(handle) is not None and "over", timeout_s=120, what="the end")
    assert code == "over"
    assert (spec.parent / "result" / "manifest.json").exists(), (spec.parent / "engine.log").read_text()[
        -2000:
    ]
    compute.stop(handle, grace_s=0)
    assert marked("att_two") == []


class Worker:
    """run_attempt in a thread of its own, as a worker's process would run it."""

    def __init__(self, job: Job) -> None:
        schedule_once()
        self.attempt = Attempt.objects.get(job=job, ended_at=None)
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        try:
            run_attempt(self.attempt.pk)
        finally:
            connection.close()

    def join(self, timeout_s: float) -> None:
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the worker is still busy"

    @property
    def processes(self) -> list[psutil.Process]:
        return marked(self.attempt.public_id)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_real_run_on_digits_from_queue_to_registry(as_ben):
    job = make_job(
        as_ben, upload_digits(as_ben, images=600), resources={"processes": 2}, hyperparameters={"epochs": 6},
        compression={"methods": ["int8"], "max_accuracy_drop": 0.1},
    )  # fmt: skip
    worker = Worker(job)
    worker.join(240)
    job = job.reload()
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, "")
    assert job.step == job.total_steps > 0
    variants = {version.variant: version for version in ModelVersion.objects.filter(job=job)}
    assert {"original", "int8"} <= set(variants)
    assert variants["original"].accuracy > 0.7
    numbers = list(job.events.values_list("seq", flat=True))
    assert numbers == list(range(1, job.last_seq + 1))
    losses = [event.data["value"] for event in job.events.filter(kind="metric", data__name="train/loss")]
    assert len(losses) == job.total_steps and losses[-1] < losses[0]
    cost = costs_of([job])[job.public_id]
    held_s = (worker.attempt.reload().ended_at - worker.attempt.created_at).total_seconds()
    assert float(cost) == pytest.approx(held_s * 2 * 0.06 / 3600, rel=0.02)
    assert worker.processes == [] and not run_folder(worker.attempt).exists()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_cancel_ends_every_process_of_a_real_run_within_ten_seconds(as_ben):
    job = make_job(
        as_ben, upload_digits(as_ben, images=400), resources={"processes": 2},
        hyperparameters={"epochs": 5000}, compression=QUICK,
    )  # fmt: skip
    worker = Worker(job)
    wait_for(lambda: job.reload().step > 3, timeout_s=90, what="a few steps")
    assert len(worker.processes) >= 3
    began = time.monotonic()
    cancel_job(as_ben, job.reload())
    wait_for(lambda: not worker.processes, timeout_s=10, what="the end of every process")
    took = time.monotonic() - began
    worker.join(20)
    assert took < 10
    assert (job.reload().status, job.reload().reason) == (JobStatus.CANCELLED, Reason.BY_USER)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_worker_that_shuts_down_saves_the_run_and_the_next_goes_on(as_ben):
    job = make_job(
        as_ben, upload_digits(as_ben, images=400), resources={"processes": 2},
        hyperparameters={"epochs": 5000}, compression=QUICK,
    )  # fmt: skip
    worker = Worker(job)
    try:
        wait_for(lambda: job.reload().step > 20, timeout_s=90, what="a few steps")
        shutdown.worker_closes()
        began = time.monotonic()
        worker.join(15)
        assert time.monotonic() - began < 8
        assert worker.processes == []
        assert (job.reload().status, worker.attempt.reload().reason) == (JobStatus.QUEUED, Reason.PREEMPTED)
        before = job.reload().step
        shutdown.worker_opens()
        second = Worker(job)
        said = "Going on from the checkpoint"
        wait_for(
            lambda: job.events.filter(attempt=second.attempt, data__text__startswith=said).exists(),
            timeout_s=90,
            what="the second attempt to go on",
        )
        wait_for(lambda: job.reload().step >= before, timeout_s=60, what="progress")
        cancel_job(as_ben, job.reload())
        second.join(30)
    finally:
        shutdown.worker_opens()


def test_the_number_of_gpus_is_asked_of_the_machine(settings):
    settings.LOCAL_GPUS = 3
    assert LocalCompute().capacity().gpus == 3
    settings.LOCAL_GPUS = -1
    assert LocalCompute().capacity().gpus == len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
