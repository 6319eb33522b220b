"""Events are whole lines with a gapless number, across restarts and torn writes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.trainer.helpers import environment, wait_for
from trainer.contract import EventKind, Failure, read_events
from trainer.events import Events
from trainer.failures import BadData, Diverged, Stalled, explain
from trainer.usage import Usage


def say(path: Path, phase: str) -> None:
    events = Events(path)
    events.state(phase)
    events.close()


def test_numbers_go_on_where_the_last_attempt_stopped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        events = Events(path)
        events.state("training")
        events.log("hello")
        events.close()
    found, offset = read_events(path)
    assert [event.seq for event in found] == [1, 2, 3, 4]
    assert offset == path.stat().st_size
    assert all(event.at.endswith("Z") for event in found)


def test_a_line_that_a_killed_process_left_half_written_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    say(path, "training")
    _, seen = read_events(path)
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "at": "20')
    say(path, "done")
    found, _ = read_events(path, seen)
    assert [(event.seq, event.data["phase"]) for event in found] == [(2, "done")]


def test_ranks_without_a_file_stay_silent(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    Events(None).state("training")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_long_run_shows_at_most_twenty_losses_and_four_progress_a_second(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    for step in range(1, 500):
        events.step_metric("train/loss", 1.0, step=step)
        events.progress(step=step, total_steps=500, epoch=1, eta_s=1.0)
    events.progress(step=500, total_steps=500, epoch=1, eta_s=0.0)
    events.close()
    kinds = [event.kind for event in read_events(tmp_path / "e")[0]]
    assert kinds.count(EventKind.METRIC) < 20
    assert 2 <= kinds.count(EventKind.PROGRESS) < 10  # the last one always comes


def test_a_short_run_shows_every_step(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    events.all_steps = True
    for step in range(200):
        events.step_metric("train/loss", 1.0, step=step)
    events.close()
    assert len(read_events(tmp_path / "e")[0]) == 200


def test_no_event_holds_what_is_not_json(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    events.metric("val/loss", float("nan"), step=1)
    events.log("行 '\n' \x00")
    events.close()
    lines = (tmp_path / "e").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["log"]


def test_speaking_does_not_wait_for_a_slow_disk_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    events = Events(tmp_path / "e", most_waiting=300)
    with events._writing:  # the disk takes its time
        began = time.monotonic()
        for step in range(1000):
            events.metric("train/loss", 1.0, step=step)
        events.state("done")
        assert time.monotonic() - began < 0.5
    events.close()
    found = read_events(tmp_path / "e")[0]
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert [event.data["step"] for event in found if event.kind is EventKind.METRIC] == list(range(300))
    assert [event.data["phase"] for event in found if event.kind is EventKind.STATE] == ["done"]
    assert any(event.data.get("text", "").startswith("700 metrics were left out") for event in found)


def test_the_time_of_an_event_is_when_it_was_said_not_when_it_was_written(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    with events._writing:  # the writer waits
        events.log("one")
        time.sleep(0.2)
        events.log("two")
    events.close()
    one, two = (datetime.fromisoformat(event.at) for event in read_events(tmp_path / "e")[0])
    assert (two - one).total_seconds() >= 0.2


def test_what_could_not_be_written_is_told_to_the_loop_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "e"
    code = f"""
import resource, time
from pathlib import Path
from trainer.contract import Failure
from trainer.events import Events
events = Events(Path({str(path)!r}))
events.state("training"); events.flush()
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
events.metric("train/loss", 1.0, step=1)
events.log("y" * 300)
try:
    events.flush()
except OSError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    events.error(Failure.DISK_FULL, "full")
    events.close()
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kinds = [str(event.kind) for event in read_events(path)[0]]
    assert kinds == ["state", "log", "error"]


def test_a_run_tells_what_it_takes_of_the_machine(tmp_path: Path) -> None:
    usage = Usage(gpus=True)()
    assert 10_000_000 < usage["rss_bytes"] < 100_000_000_000
    assert usage["cpu_percent"] >= 0
    assert all(set(gpu) == {"memory_bytes", "busy_percent", "energy_j"} for gpu in usage.get("gpus", []))
    events = Events(tmp_path / "e", usage=Usage())
    wait_for(lambda: read_events(tmp_path / "e")[0], timeout_s=10, what="a reading")
    events.close()
    assert read_events(tmp_path / "e")[0][0].kind is EventKind.RESOURCE


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadData("row 3"), Failure.BAD_DATA),
        (Diverged("nan"), Failure.DIVERGED),
        (Stalled("no step"), Failure.STALLED),
        (MemoryError(), Failure.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Failure.OUT_OF_MEMORY),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), Failure.OUT_OF_MEMORY),
        (OSError(28, "No space left on device"), Failure.DISK_FULL),
        (KeyError("x"), Failure.CRASHED),
    ],
)
def test_an_error_has_a_reason_and_a_line_for_people(error: Exception, reason: Failure) -> None:
    found, text = explain(error)
    assert found is reason
    assert text
    assert "\n" not in text
