"""What an attempt's end means: final or tried again, and in which words."""

from __future__ import annotations

import re

import pytest
from django.utils import translation

from jobs import compute
from jobs.models import Attempt
from jobs.said import said
from jobs.services.dispatch import run_attempt
from jobs.services.outcome import LastWords, Outcome, decide_outcome
from jobs.services.schedule import schedule_once
from jobs.states import MOST_TRIES, JobStatus, Reason
from tests.jobs.dispatch_house import run_with
from tests.jobs.factories_jobs import FakeCompute, make_job
from trainer.checkpoint import Unusable
from trainer.contract import EventKind, Exit, Failure, HyperParameters, RunSpec, TrainingSpec
from trainer.failures import less_memory

TORCHRUN = """
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 4711)
  traceback : Signal 9 (SIGKILL) received by PID 4711
"""


def outcome(code: int = 1, words: LastWords | None = None, tail: str = "") -> Outcome:
    return decide_outcome(
        exit_code=code, words=words or LastWords(), finished=False, stopped_for=Reason.NONE, preempted=False,
        tail=tail,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "tail"), [(-9, ""), (Exit.KILLED, ""), (1, TORCHRUN)], ids=["leader", "warm", "torchrun"]
)
def test_a_process_killed_from_outside_is_tried_again(code, tail):
    found = outcome(code, tail=tail)
    assert (found.status, found.reason) == (None, Reason.KILLED)
    assert "memory" in found.error


@pytest.mark.parametrize("failure", list(Failure))
def test_every_failure_of_the_engine_is_a_reason_of_ours(failure):
    found = outcome(words=LastWords(reason=Reason(failure.value), text="why"))
    assert (found.reason, found.error) == (failure.value, "why")
    assert (found.status is None) == Reason(failure.value).retryable


def test_a_crash_with_other_words_of_torchrun_is_final():
    tail = TORCHRUN.replace("-9", "1")
    assert outcome(tail=tail).status == JobStatus.FAILED


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("reason", [Reason.KILLED, Reason.STALLED])
def test_what_keeps_happening_ends_the_job_with_its_own_reason(as_ben, flowers, reason):
    def end(engine, turn):
        engine.say(EventKind.ERROR, reason=reason.value, text="It happened.", traceback="")
        return 1

    job = make_job(as_ben, flowers)
    with compute.use(FakeCompute(end)):
        for turn in range(1, MOST_TRIES[reason] + 1):
            assert schedule_once() == 1
            run_attempt(Attempt.objects.get(job=job, ended_at=None).pk)
            last = turn == MOST_TRIES[reason]
            assert job.reload().status == (JobStatus.FAILED if last else JobStatus.QUEUED)
    assert (job.reload().reason, job.reload().error) == (reason, "It happened.")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_a_kill_nobody_could_speak_of_is_told_in_the_log(as_ben, flowers):
    job, attempt, _ = run_with(lambda engine, turn: -9, as_ben, flowers)
    assert (job.status, attempt.reason) == (JobStatus.QUEUED, Reason.KILLED)
    assert "killed by signal 9" in job.events.filter(kind="log").last().data["text"]


def spec_of(batch_size: int, grad_accumulation: int | str = "auto") -> RunSpec:
    return RunSpec(
        run_id="r", recipe="image-classification", data=None,  # type: ignore[arg-type]
        hyperparameters=HyperParameters(batch_size=batch_size),
        training=TrainingSpec(grad_accumulation=grad_accumulation),
    )  # fmt: skip


def test_out_of_memory_suggests_numbers():
    text = less_memory(spec_of(512, 2))
    assert "batch_size 512" in text and "grad_accumulation to 4" in text and "batch_size to 256" in text


SENTENCES = [
    less_memory(spec_of(512)),
    f"{less_memory(spec_of(512, 2))} (RuntimeError: x)",
    "The loss became nan at step 3 of 90: try a smaller learning_rate than 0.1, or look for extreme values. "
    "The last good checkpoint: step 2.",
    "The loss became inf at step 3 of 90: try a smaller learning_rate than 0.1, or look for extreme values. "
    "No checkpoint was written before.",
    "No step was finished for 301 s (waiting for the one after step 9): a process or a machine hangs. "
    "Start the run again; it goes on from its last checkpoint.",
    "Started by torchrun: the warm parent did not come up.",
    "Started by torchrun: a forked process could not use a GPU.",
    f"Checkpoint step-40 is left out: {Unusable('model.safetensors does not match its checksum')}.",
    "Going on from the checkpoint at step 30 of 90.",
    "The spec asks for 2 processes, 1 were started.",
    "Stopped early at step 30 of 90: no better for 3 epochs.",
]


@pytest.mark.parametrize("text", SENTENCES)
def test_what_the_engine_says_of_a_run_is_told_in_chinese(text):
    assert said(text) == text
    with translation.override("zh-hans"):
        left = re.sub(
            r"batch_size|grad_accumulation|learning_rate|model.safetensors|torchrun|GPU", "", said(text)
        )
        left = re.sub(r"RuntimeError: x|nan|inf|step-40", "", left)
    assert not re.search(r"[a-z]{3}", left), left
