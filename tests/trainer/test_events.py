"""Events are whole lines with a gapless number, across restarts and torn writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.contract import EventKind, Failure, read_events
from trainer.events import Events
from trainer.failures import BadData, Diverged, explain


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
    Events(path).state("training")
    _, seen = read_events(path)
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "at": "20')
    Events(path).state("done")
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
    kinds = [event.kind for event in read_events(tmp_path / "e")[0]]
    assert kinds.count(EventKind.METRIC) < 20
    assert 2 <= kinds.count(EventKind.PROGRESS) < 10  # the last one always comes


def test_a_short_run_shows_every_step(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    events.all_steps = True
    for step in range(200):
        events.step_metric("train/loss", 1.0, step=step)
    assert len(read_events(tmp_path / "e")[0]) == 200


def test_no_event_holds_what_is_not_json(tmp_path: Path) -> None:
    events = Events(tmp_path / "e")
    events.metric("val/loss", float("nan"), step=1)
    events.log("行 '\n' \x00")
    lines = (tmp_path / "e").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["log"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadData("row 3"), Failure.BAD_DATA),
        (Diverged("nan"), Failure.DIVERGED),
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
