"""A run that hangs ends by itself, and says that it hung and where."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.trainer.helpers import children, events, phases, rank_of, start_engine, wait_for
from tests.trainer.test_resume import numbers_run
from trainer.contract import EventKind, Failure, TrainingSpec
from trainer.watchdog import Watchdog


def watch(told: list[str], *, limit_s: float = 0.3, first_s: float = 0.3) -> Watchdog:
    return Watchdog(limit_s=limit_s, first_s=first_s, on_stall=lambda text, trace: told.append(text + trace))


def test_steps_that_advance_keep_it_quiet_and_silence_wakes_it_once() -> None:
    told: list[str] = []
    with watch(told) as dog:
        for step in range(1, 11):
            time.sleep(0.05)
            dog.step(step)
        assert not told
        wait_for(lambda: told, timeout_s=10, what="a stall")
    assert len(told) == 1
    assert "after step 10" in told[0]
    assert "wait_for" in told[0]  # the trace shows where the loop was


def test_the_first_step_may_take_longer() -> None:
    told: list[str] = []
    with watch(told, first_s=30):
        time.sleep(0.8)
    assert not told


def test_slow_steps_are_not_a_stall_and_validation_counts_as_life() -> None:
    told: list[str] = []
    with watch(told, limit_s=0.1) as dog:
        for step in range(1, 4):
            dog._took.append(0.5)  # as if a step usually took half a second
            dog.step(step)
        time.sleep(0.4)
        for _ in range(3):
            dog.beat()
            time.sleep(0.1)
    assert not told


@pytest.mark.slow
@pytest.mark.chaos
def test_a_rank_that_stands_still_ends_the_run_with_its_own_reason(tmp_path: Path) -> None:
    spec = numbers_run(
        tmp_path, TrainingSpec(stall_after_s=2.0, checkpoint_every_steps=4), processes=2, epochs=3000
    )
    process = start_engine(spec, "train", processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    (still,) = [pid for pid in children(process.pid) if rank_of(pid) == 1 and not children(pid)]
    os.kill(still, signal.SIGSTOP)
    try:
        (error,) = wait_for(lambda: events(spec, EventKind.ERROR), timeout_s=30, what="the end of the run")
        assert error.data["reason"] == Failure.STALLED
        assert "No step was finished" in error.data["text"]
        assert "done" not in phases(spec)
    finally:
        os.kill(still, signal.SIGKILL)
    assert process.wait(timeout=40) != 0
