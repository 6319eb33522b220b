"""What dies under `up` comes back; what dies again and again ends all; Ctrl-C still leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from console.management.commands import up
from tests.stack import ROOT, Stack

RUN = """
import sys
from console import keeper
keeper.QUICK_S, keeper.PAUSE_S = {quick_s}, {pause_s}
kept = keeper.Keeper()
for number, command in enumerate(sys.argv[1:]):
    kept.add_process(f"p{{number}}", command)
kept.loop()
sys.exit(kept.returncode or 0)
"""


def keep(*commands: str, quick_s: float = 10, pause_s: float = 0.1) -> subprocess.Popen[str]:
    code = RUN.format(quick_s=quick_s, pause_s=pause_s)
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code, *commands], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_what_dies_at_once_again_and_again_ends_all_with_its_own_status():
    kept = keep("sleep 600", "echo no such port; exit 3")
    said, _ = kept.communicate(timeout=60)
    assert kept.returncode == 3
    assert said.count("p1 died (rc=3); starting it again") == 4
    assert "p1 died 5 times" in said and "giving up" in said
    assert said.count("no such port") == 5


def test_what_lived_for_a_while_comes_back_as_often_as_it_dies(tmp_path):
    # each life is longer than "quick"; the eighth stays
    count = tmp_path / "lives"
    kept = keep(f"echo x >> {count}; [ $(wc -l < {count}) -ge 8 ] && echo settled && sleep 600; sleep 0.3",
                quick_s=0.2)  # fmt: skip
    lines = []
    for line in kept.stdout:
        lines.append(line)
        if "settled" in line:
            break
    kept.send_signal(signal.SIGINT)
    kept.communicate(timeout=60)
    assert kept.returncode == 130
    assert sum("starting it again now" in line for line in lines) == 7, "".join(lines)


def test_ctrl_c_while_something_waits_for_its_next_start_leaves_nothing(tmp_path):
    kept = keep("exit 1", "sleep 600", pause_s=30)
    for line in kept.stdout:
        if "starting it again in 30 s" in line:
            break
    children = psutil.Process(kept.pid).children(recursive=True)
    started = time.monotonic()
    kept.send_signal(signal.SIGINT)
    kept.communicate(timeout=60)
    assert kept.returncode == 130
    assert time.monotonic() - started < 20
    assert not [one for one in children if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.chaos
def test_every_killed_process_comes_back_and_ctrl_c_still_leaves_nothing():
    stack = Stack()
    try:
        stack.start("--port", str(up.free_port("127.0.0.1", 0)))
        names = list(up.processes("127.0.0.1", 1, 2))
        for name in names:
            stack.wait_for(rf"{name} started \(pid=\d+\)", 60)
            pid = _pids(stack, name)[-1]
            psutil.Process(pid).kill()
            stack.wait_for(rf"{name} died \(rc=-9\); starting it again", 60)
        for name in names:
            _until(lambda name=name: len(_pids(stack, name)) == 2, f"{name} did not come back", stack)
        for address in (f"{stack.url}/health/ready", f"{stack.gateway_url}/v2/health/live"):
            _until(lambda address=address: _answers(address), f"{address} does not answer", stack)
        born = [_pids(stack, name)[-1] for name in names]
        assert all(psutil.pid_exists(pid) for pid in born), stack.log()[-6000:]
        stack.stop()
        _until(lambda: not any(map(psutil.pid_exists, born)), "something stayed", stack)
        assert not [one for one in psutil.process_iter(["cmdline"]) if _names(one, stack.folder)]
    finally:
        stack.stop()


def _pids(stack: Stack, name: str) -> list[int]:
    marked = [line for line in stack.log().splitlines() if f"{name} started (pid=" in line]
    return [int(line.rsplit("(pid=", 1)[1].rstrip(")")) for line in marked]


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _names(process: psutil.Process, folder: Path) -> bool:
    return str(folder) in " ".join(process.info["cmdline"] or [])


def _until(true, else_say: str, stack: Stack) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, f"{else_say}; the log says:\n{stack.log()[-6000:]}"
        time.sleep(0.1)
