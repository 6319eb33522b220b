"""A warm parent starts runs in a fraction of the time, and they begin and end as under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
    table_run,
    wait_for,
)
from tests.trainer.test_resume import OFTEN, numbers_run, weights
from trainer.contract import EventKind, Exit, Failure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a warm parent."""
    path = tmp_path_factory.mktemp("warm") / "w.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.warm", "serve", str(path)],
        env={**environment(), "SECRET_OF_THE_PARENT": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield path
    process.kill()
    process.wait()
    process.stdout.close()


def start(parent: Path, spec: Path, *, processes: int = 1, phase: str = "train") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainer.warm", "run", str(parent), str(spec), str(processes), phase]
    with (spec.parent / "engine.log").open("ab") as log:
        return subprocess.Popen(command, env=environment(), cwd=spec.parent, stdout=log, stderr=log)


def ranks_of(spec: Path) -> list[int]:
    """Forked ranks carry no name of their own, but they work in the run's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                here = (entry / "cwd").readlink() == spec.parent.resolve()
                warm = b"serve" in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if here and warm and not children(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


def test_two_warm_ranks_learn_to_the_last_bit_what_torchrun_teaches(parent: Path, tmp_path: Path) -> None:
    cold = numbers_run(tmp_path / "cold", processes=2, epochs=4)
    assert engine(cold, "train", processes=2).returncode == 0
    warm = numbers_run(tmp_path / "warm", processes=2, epochs=4)
    assert start(parent, warm, processes=2).wait(timeout=60) == 0
    assert phases(warm) == ["starting", "training", "done"]
    assert losses(warm) == losses(cold)
    assert weights(warm) == weights(cold)


@pytest.mark.chaos
def test_a_killed_rank_ends_a_warm_run_and_the_next_goes_on_as_if_nothing_had_happened(
    parent: Path, tmp_path: Path
) -> None:
    spec = numbers_run(tmp_path / "killed", OFTEN, processes=2)
    process = start(parent, spec, processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    family = ranks_of(spec)
    assert len(family) == 2
    os.kill(family[1], signal.SIGKILL)
    assert process.wait(timeout=20) != 0
    assert not any(alive(pid) for pid in family)
    assert events(spec, EventKind.ERROR)[0].data["reason"] == Failure.KILLED
    assert start(parent, spec, processes=2).wait(timeout=60) == 0
    alone = numbers_run(tmp_path / "alone", OFTEN, processes=2)
    assert start(parent, alone, processes=2).wait(timeout=60) == 0
    assert losses(spec) == losses(alone)
    assert weights(spec) == weights(alone)


def test_sigterm_reaches_the_ranks_and_their_exit_code_comes_back(parent: Path, tmp_path: Path) -> None:
    spec = numbers_run(tmp_path, processes=2, epochs=3000)
    process = start(parent, spec, processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == Exit.PREEMPTED
    assert phases(spec)[-1] == "preempted"


@pytest.mark.chaos
def test_ranks_do_not_outlive_the_one_who_asked_for_them(parent: Path, tmp_path: Path) -> None:
    spec = numbers_run(tmp_path, processes=2, epochs=3000)
    process = start(parent, spec, processes=2)
    wait_for(lambda: events(spec, EventKind.CHECKPOINT), what="a checkpoint")
    family = ranks_of(spec)
    assert len(family) == 2
    process.kill()
    process.wait(timeout=10)
    wait_for(lambda: not any(alive(pid) for pid in family), timeout_s=5, what="every rank to be gone")


def test_bad_data_keeps_its_exit_code_and_its_traceback_goes_to_the_log(parent: Path, tmp_path: Path) -> None:
    spec = table_run(tmp_path, ["a", "y"], [[1, "u"], [2, "v"], [3, ""]] * 5, "y")
    assert start(parent, spec).wait(timeout=30) == Exit.BAD_DATA
    assert "BadData" in (tmp_path / "engine.log").read_text()


def test_a_rank_has_the_environment_of_the_one_who_asked_not_of_the_parent(
    parent: Path, tmp_path: Path
) -> None:
    code = (
        "import os, json; from trainer import warm; from pathlib import Path;"
        f"warm._be_rank = lambda order: (Path({str(tmp_path / 'env.json')!r})"
        ".write_text(json.dumps(dict(os.environ))), os._exit(0));"
        "warm._import_all = lambda: None;"
        f"warm.serve(Path({str(tmp_path / 's.sock')!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**environment(), "SECRET_OF_THE_PARENT": "1"},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        spec = numbers_run(tmp_path / "run")
        assert start(tmp_path / "s.sock", spec).wait(timeout=20) == 0
        said = (tmp_path / "env.json").read_text()
        assert "SECRET_OF_THE_PARENT" not in said
        assert '"WORLD_SIZE": "1"' in said
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_first_step_comes_much_sooner_than_under_torchrun(parent: Path, tmp_path: Path) -> None:
    def first_step_s(spec: Path, begin) -> float:
        began = time.monotonic()
        process = begin()
        wait_for(lambda: events(spec, EventKind.METRIC), timeout_s=60, what="the first step")
        took = time.monotonic() - began
        process.wait(timeout=60)
        return took

    from tests.trainer.helpers import start_engine

    cold, warm = (numbers_run(tmp_path / name, processes=2, epochs=3) for name in ("cold", "warm"))
    cold_s = first_step_s(cold, lambda: start_engine(cold, "train", processes=2))
    warm_s = first_step_s(warm, lambda: start(parent, warm, processes=2))
    assert warm_s < cold_s / 3  # a busy machine; the bench measures the real ratio
