"""Two machines, played by two torchrun agents on the loopback, each with a run folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.helpers import (
    alive,
    children,
    engine,
    environment,
    events,
    losses,
    phases,
    wait_for,
)
from tests.trainer.test_resume import numbers_run, said, weights
from trainer.contract import EventKind, RunSpec, TrainingSpec
from trainer.launch import interface_of

OFTEN = TrainingSpec(checkpoint_every_steps=4)
EPOCHS = 12


def two_nodes(folder: Path) -> list[Path]:
    specs = []
    for name in ("first", "second"):
        spec = numbers_run(folder / name, OFTEN, processes=2, epochs=EPOCHS)
        told = RunSpec.from_json(spec.read_text())
        spec.write_text(replace(told, resources=replace(told.resources, nodes=2)).to_json())
        specs.append(spec)
    return specs


def start(specs: list[Path]) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    for rank, spec in enumerate(specs):
        command = [sys.executable, "-m", "trainer.launch", str(spec), "2", "train"]
        command += ["--node-rank", str(rank), "--meet", f"127.0.0.1:{port}"]
        with (spec.parent / "log").open("ab") as log:
            found.append(
                subprocess.Popen(command, env=environment(), cwd=spec.parent, stdout=log, stderr=log)
            )
    return found


@pytest.mark.slow
@pytest.mark.chaos
def test_two_nodes_learn_what_one_does_and_go_on_after_one_of_them_was_lost(tmp_path: Path) -> None:
    alone = numbers_run(tmp_path / "alone", OFTEN, processes=2, epochs=EPOCHS)
    assert engine(alone, "train", processes=2).returncode == 0

    specs = two_nodes(tmp_path)
    first, second = start(specs)
    try:
        wait_for(lambda: events(specs[0], EventKind.CHECKPOINT), timeout_s=120, what="a checkpoint")
        family = [*children(second.pid), second.pid]
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        assert first.wait(timeout=90) != 0
        wait_for(lambda: not any(alive(pid) for pid in children(first.pid)), what="the end of the first")
        second.wait(timeout=10)
        assert "done" not in phases(specs[0])
        # a new machine takes the place of the lost one: it has the data and nothing else
        shutil.rmtree(specs[1].parent / "checkpoints", ignore_errors=True)
        first, second = start(specs)
        assert (first.wait(timeout=180), second.wait(timeout=30)) == (0, 0), (
            specs[0].parent / "log"
        ).read_text()[-2000:]
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    assert any("Going on from the checkpoint" in text for text in said(specs[0]))
    assert not (specs[1].parent / "checkpoints").exists()  # only rank 0 writes
    assert losses(specs[0]) == losses(alone)
    assert weights(specs[0]) == weights(alone)


def test_the_loopback_is_found_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.9") == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["2"], "--meet names host:port"),
        (["2", "--meet", "127.0.0.1"], "--meet names host:port"),
        (["3", "--meet", "127.0.0.1:1"], "cannot be shared evenly"),
        (["2", "--meet", "127.0.0.1:1", "--node-rank", "2"], "between 0 and 1"),
    ],
)
def test_a_wrong_place_is_refused_before_anything_starts(tmp_path: Path, words: list[str], why: str) -> None:
    spec = two_nodes(tmp_path)[0]
    command = [sys.executable, "-m", "trainer.launch", str(spec), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and why in done.stderr


def test_nodes_share_the_processes_evenly_or_the_spec_is_refused(tmp_path: Path) -> None:
    spec = two_nodes(tmp_path)[0]
    text = spec.read_text().replace('"nodes": 2', '"nodes": 3')
    with pytest.raises(ValueError, match="/resources/nodes"):
        RunSpec.from_json(text)
