"""Runs that are forked from a warm parent: as safe as those of torchrun, and much sooner at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from jobs import compute
from jobs.compute import Gang
from jobs.compute.local import MARK, LocalCompute, _members
from jobs.compute.warm import WarmParent
from jobs.models import Attempt
from jobs.services.jobs import cancel_job
from jobs.states import JobStatus, Reason
from tests.jobs.factories_jobs import make_job, upload_digits
from tests.jobs.test_compute import QUICK, Worker
from tests.trainer.helpers import digits_run, events, wait_for
from trainer.contract import EventKind, Exit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCompute]:
    made = LocalCompute()
    made.warm_up()
    yield made
    made.close()


@pytest.fixture
def warm(local: LocalCompute) -> LocalCompute:
    assert local.warm_parent is not None
    wait_for(lambda: local.warm_parent.socket(wait_s=60), timeout_s=120, what="the warm parent")
    return local


def gang_of(spec: Path, processes: int = 2, **more: object) -> Gang:
    return Gang(run=spec.parent.name, folder=spec.parent, spec=spec, processes=processes, **more)  # type: ignore[arg-type]


def living(run: str) -> list[psutil.Process]:
    return _members(run, None)


def ranks(run: str) -> list[psutil.Process]:
    """The forked ones that have no children: the agent has."""
    forked = [one for one in living(run) if one.environ().get(MARK) != run]
    return [one for one in forked if not one.children()]


def long_run(folder: Path) -> Path:
    return digits_run(folder, images=200, processes=2, epochs=5000)


def said(spec: Path) -> list[str]:
    return [event.data["text"] for event in events(spec, EventKind.LOG)]


def test_a_forked_run_trains_ends_well_and_leaves_nobody(warm, tmp_path):
    spec = digits_run(tmp_path / "att_warm", images=200, processes=2, epochs=1)
    handle = warm.start(gang_of(spec))
    assert handle["warm"]
    wait_for(lambda: len(living("att_warm")) >= 4, what="client, agent and two ranks")
    wait_for(lambda: warm.poll(handle) is not None, timeout_s=120, what="the end")
    assert (spec.parent / "result" / "manifest.json").exists(), (spec.parent / "engine.log").read_text()[
        -2000:
    ]
    assert living("att_warm") == []
    assert not [text for text in said(spec) if "torchrun" in text]


def test_stop_ends_forked_ranks_even_when_they_stand_still(warm, tmp_path):
    spec = long_run(tmp_path / "att_still")
    handle = warm.start(gang_of(spec))
    wait_for(lambda: events(spec, EventKind.METRIC), what="a step")
    for process in ranks("att_still"):
        process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    warm.stop(handle, grace_s=1)
    assert living("att_still") == []
    assert time.monotonic() - began < 8


def test_leftovers_are_found_without_a_handle_and_others_are_left_alone(warm, tmp_path):
    mine, other = long_run(tmp_path / "att_mine"), long_run(tmp_path / "att_other")
    warm.start(gang_of(mine))
    second = warm.start(gang_of(other))
    for spec in (mine, other):
        wait_for(lambda spec=spec: events(spec, EventKind.METRIC), what="a step")
    warm.stop_run("att_mine")
    assert living("att_mine") == []
    assert len(ranks("att_other")) == 2 and warm.poll(second) is None
    warm.stop(second, grace_s=0)
    assert living("att_other") == []


def test_a_forked_process_is_shown_no_credentials(monkeypatch, tmp_path):
    monkeypatch.setenv("TAUON_SECRET_KEY", "do not tell")
    monkeypatch.setenv("DATABASE_URL", "do not tell")
    made = LocalCompute()
    try:
        assert made.warm_parent is not None
        wait_for(lambda: made.warm_parent.socket(wait_s=60), timeout_s=120, what="the warm parent")
        spec = long_run(tmp_path / "att_clean")
        handle = made.start(gang_of(spec))
        wait_for(lambda: len(ranks("att_clean")) == 2, what="the ranks")
        for process in living("att_clean"):
            assert "do not tell" not in process.environ().values()
        made.stop(handle, grace_s=0)
    finally:
        made.close()


def test_a_run_outlives_the_warm_parent_and_the_next_finds_a_new_one(warm, tmp_path):
    spec = long_run(tmp_path / "att_orphan")
    handle = warm.start(gang_of(spec))
    wait_for(lambda: events(spec, EventKind.METRIC), what="a step")
    first = warm.warm_parent.pid
    os.kill(first, signal.SIGKILL)
    before = len(events(spec))
    wait_for(lambda: len(events(spec)) > before + 5, what="more steps")
    assert warm.poll(handle) is None
    wait_for(lambda: warm.warm_parent.pid not in (None, first), timeout_s=60, what="a new parent")
    assert wait_for(lambda: warm.warm_parent.socket(wait_s=60), timeout_s=120, what="its socket")
    warm.stop(handle, grace_s=0)
    assert living("att_orphan") == []


def test_where_no_parent_answers_torchrun_starts_the_run_and_it_is_said(tmp_path):
    broken = LocalCompute()
    broken.warm_parent = WarmParent({"PYTHONHOME": "/nowhere", MARK: "warm"})
    try:
        spec = digits_run(tmp_path / "att_cold", images=100, processes=1, epochs=1)
        handle = broken.start(gang_of(spec, processes=1))
        assert not handle["warm"]
        wait_for(lambda: broken.poll(handle) is not None, timeout_s=120, what="the end")
        assert (spec.parent / "result" / "manifest.json").exists()
        assert "Started by torchrun: the warm parent did not come up." in said(spec)
    finally:
        broken.close()


def test_a_parent_that_dies_at_the_last_moment_costs_the_run_nothing(warm, tmp_path, monkeypatch):
    spec = digits_run(tmp_path / "att_late", images=100, processes=1, epochs=1)
    monkeypatch.setattr(warm.warm_parent, "socket", lambda: tmp_path / "nobody")
    handle = warm.start(gang_of(spec, processes=1))
    wait_for(lambda: warm.poll(handle) is not None, timeout_s=120, what="the end")
    assert (spec.parent / "result" / "manifest.json").exists()
    assert any("the warm parent does not answer" in text for text in said(spec))


def test_gpus_and_compiling_start_cold_and_say_why(tmp_path):
    made = LocalCompute()
    spec = tmp_path / "spec.json"
    for gang, why in (
        (Gang(run="a", folder=tmp_path, spec=spec, processes=1, gpus=(0,)), "GPU"),
        (Gang(run="a", folder=tmp_path, spec=spec, processes=1, compiles=True), "torch.compile"),
    ):
        because, meet = made._way_in(gang)
        assert meet is None and why in because


def test_nothing_is_left_when_the_worker_is_killed(tmp_path):
    spec = long_run(tmp_path / "att_leash")
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(f"""
        import pathlib, time
        import django; django.setup()
        from jobs.compute import Gang
        from jobs.compute.local import LocalCompute
        local = LocalCompute()
        assert local.warm_parent.socket(wait_s=90)
        spec = pathlib.Path({str(spec)!r})
        handle = local.start(Gang(run="att_leash", folder=spec.parent, spec=spec, processes=2))
        print(local.warm_parent.pid, handle["warm"], flush=True)
        time.sleep(600)
        """)
    )
    env = {**os.environ, "PYTHONPATH": str(settings.BASE_DIR), "DJANGO_SETTINGS_MODULE": "console.settings"}
    running = subprocess.Popen([sys.executable, str(script)], env=env, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    parent, forked = running.stdout.readline().split()
    assert forked == "True"
    wait_for(lambda: len(ranks("att_leash")) == 2, what="the ranks")
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    wait_for(lambda: not living("att_leash"), timeout_s=10, what="the end of the gang")
    wait_for(lambda: not psutil.pid_exists(int(parent)), timeout_s=10, what="the end of the parent")


# -- the product: from the queue to the first step, and back from a kill -------------------------------------


@pytest.mark.django_db(transaction=True)
def test_cancel_ends_every_forked_process_within_ten_seconds(as_ben, warm):
    job = make_job(
        as_ben, upload_digits(as_ben, images=200), resources={"processes": 2},
        hyperparameters={"epochs": 5000}, compression=QUICK,
    )  # fmt: skip
    with compute.use(warm):
        worker = Worker(job)
        wait_for(lambda: job.reload().step > 3, timeout_s=60, what="a few steps")
        assert worker.attempt.reload().handle["warm"]
        began = time.monotonic()
        cancel_job(as_ben, job.reload())
        wait_for(lambda: not worker.processes, timeout_s=10, what="the end of every process")
        assert time.monotonic() - began < 10
        worker.join(20)
    assert (job.reload().status, job.reload().reason) == (JobStatus.CANCELLED, Reason.BY_USER)


@pytest.mark.chaos
@pytest.mark.django_db(transaction=True)
def test_after_a_rank_is_killed_the_job_goes_on_from_its_checkpoint_by_itself(as_ben, warm):
    job = make_job(
        as_ben, upload_digits(as_ben, images=200), resources={"processes": 2},
        hyperparameters={"epochs": 5000}, compression=QUICK,
    )  # fmt: skip
    with compute.use(warm):
        first = Worker(job)
        saved = job.events.filter(kind=EventKind.CHECKPOINT)
        wait_for(lambda: saved.exists(), timeout_s=60, what="a checkpoint")
        max(ranks(first.attempt.public_id), key=lambda one: one.pid).send_signal(signal.SIGKILL)
        first.join(30)
        assert (job.reload().status, first.attempt.reload().reason) == (JobStatus.QUEUED, Reason.KILLED)
        second = Worker(job)
        went_on = job.events.filter(attempt=second.attempt, data__text__startswith="Going on from the check")
        wait_for(lambda: went_on.exists(), timeout_s=60, what="the second attempt to go on")
        cancel_job(as_ben, job.reload())
        second.join(30)
    assert Attempt.objects.filter(job=job).count() == 2


def test_a_killed_rank_ends_the_run_with_the_code_of_a_kill(warm, tmp_path):
    spec = long_run(tmp_path / "att_kill")
    handle = warm.start(gang_of(spec))
    wait_for(lambda: events(spec, EventKind.METRIC), what="a step")
    victim = min(ranks("att_kill"), key=lambda one: one.pid)  # rank 0, who could not say a word
    victim.send_signal(signal.SIGKILL)
    codes: list[int] = []
    wait_for(
        lambda: codes.append(code) or True if (code := warm.poll(handle)) is not None else False,
        timeout_s=30,
        what="the end",
    )
    assert codes == [Exit.KILLED]
