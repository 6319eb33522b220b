"""`make up` as it goes wrong: taken ports, a second start, a killed start, servers that do not answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import redis

from console import alone, embedded, env, reachable
from console.embedded import Embedded
from console.first_start import Welcome
from console.management.commands import up
from tests.stack import ROOT, Stack


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_gives_way_to_the_same_other_one_every_time(taken):
    found = up.free_port("127.0.0.1", taken)
    assert found != taken
    assert found == up.free_port("127.0.0.1", taken)


def test_two_starts_at_the_same_moment_never_choose_the_same_port():
    port = up.free_port("127.0.0.1", 0)
    choose = (
        "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'console.settings'; django.setup()\n"
        "from console.management.commands import up\n"
        f"print('chose', up.Command()._port('127.0.0.1', None, {port}), flush=True); input()"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", choose],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:  # both have chosen, and nobody listens yet
        chosen = [next(line for line in start.stdout if line.startswith("chose")) for start in starts]
        assert len(set(chosen)) == 2, chosen
        print(chosen)
    finally:
        for start in starts:
            start.communicate("\n")


def test_the_gateway_never_gets_the_port_of_the_console():
    port = up.free_port("127.0.0.1", 0)
    assert up.free_port("127.0.0.1", port, avoid=port) != port


def test_an_address_that_is_not_ours_is_named():
    with pytest.raises(SystemExit, match=r"No port can be opened on 192\.0\.2\.1"):
        up.free_port("192.0.2.1", 8000)


def test_a_port_asked_for_by_name_is_not_swapped_silently(taken):
    with pytest.raises(SystemExit, match=f"Port {taken} on 127.0.0.1 is taken"):
        up.Command()._port("127.0.0.1", taken, 8000)


def test_behind_a_public_name_the_banner_names_the_ports_of_this_machine_too():
    said = Welcome(email="ana@example.org", path="/welcome/x", token="tau_x")
    here = ("http://127.0.0.1:8000", "http://127.0.0.1:8001")
    public = said.text("https://tauon.example.org", "https://api.example.org", *here)
    assert "Tauon is up at https://tauon.example.org" in public
    assert "On this machine: http://127.0.0.1:8000 and http://127.0.0.1:8001" in public
    assert "On this machine" not in said.text(*here, *here)


def test_a_second_start_over_the_same_folder_is_refused_until_the_first_has_ended(tmp_path):
    hold = f"from pathlib import Path; from console import alone; lock = alone.hold(Path({str(tmp_path)!r}))"
    first = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print('held', flush=True); input()"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(SystemExit, match=f"already runs .* kill -INT {first.pid}"):
            alone.hold(tmp_path)
    finally:
        first.kill()
        first.wait()
    alone.hold(tmp_path).close()


def test_what_a_killed_run_left_is_ended_and_nothing_of_other_folders(tmp_path):
    ours, other = (
        subprocess.Popen(["sleep", "60"], env={**os.environ, alone.MARK: folder})
        for folder in (str(tmp_path), str(tmp_path / "other"))
    )
    try:
        assert alone.end_leftovers(tmp_path, patience_s=5) == 1
        assert not psutil.pid_exists(ours.pid)
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.chaos
def test_a_killed_run_is_cleared_by_the_next_and_a_closed_terminal_leaves_nothing():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the children would rightly not hear of it
    stack = Stack()
    try:
        stack.start("--port", str(up.free_port("127.0.0.1", 0)))
        stack.process.kill()
        stack.process.wait()
        assert _of(stack), "a kill leaves the parts running; that is what the next start is for"
        stack.lines.clear()
        stack.start("--port", str(up.free_port("127.0.0.1", 0)))
        assert "Ended" in stack.log()
        stack.process.send_signal(signal.SIGHUP)
        assert stack.process.wait(60) == 0
        _until(lambda: not _of(stack))
    finally:
        stack.stop()


def _of(stack: Stack) -> list[psutil.Process]:
    """Everything that runs for the folder of this installation, servers included."""
    pair = Embedded(stack.folder)
    words = (str(stack.folder), str(pair.sockets), str(pair.data))
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid()
        and any(word in " ".join(process.info["cmdline"] or []) for word in words)
    ]


def _until(true) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_database_that_does_not_answer_is_named_without_its_password(taken):
    with pytest.raises(SystemExit, match=r"DATABASE_URL: PostgreSQL at .* cannot be used") as stopped:
        reachable.check_database("postgresql://tauon:secret@127.0.0.1:1/tauon")
    assert "unset DATABASE_URL" in str(stopped.value) and "secret" not in str(stopped.value)


def test_a_redis_that_does_not_answer_is_named():
    with pytest.raises(SystemExit, match=r"REDIS_URL: Redis at .* cannot be used"):
        reachable.check_redis("redis://:secret@127.0.0.1:1/0")


def test_servers_that_answer_pass(settings, db):
    reachable.check_database(os.environ["DATABASE_URL"])
    reachable.check_redis(os.environ["REDIS_URL"])


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TAUON_VAR", str(tmp_path / "file" / "var"))
    with pytest.raises(SystemExit, match=r"TAUON_VAR: .*cannot be made.*TAUON_VAR=/some/folder"):
        env.var_dir()


def test_an_empty_url_means_the_embedded_server(monkeypatch, tmp_path):
    monkeypatch.setenv("TAUON_VAR", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("REDIS_URL", "")
    pair = embedded.configure_urls()
    assert os.environ["DATABASE_URL"] == pair.database_url
    assert os.environ["REDIS_URL"] == pair.redis_url


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands PostgreSQL to another user")
def test_a_closed_folder_above_postgres_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TAUON_VAR", str(tmp_path))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "initdb").touch(mode=0o755)
    monkeypatch.setattr(embedded, "_postgres_binaries", lambda: closed)
    pair = Embedded(tmp_path, durable=False)
    with pytest.raises(SystemExit, match="may not enter a folder above"):
        pair.start()
    assert not (pair.data.parent / "password").exists(), "the password stays in secrets.json alone"
    pair.destroy()


@pytest.mark.slow
def test_adopted_servers_are_stopped_too(monkeypatch, tmp_path):
    monkeypatch.setenv("TAUON_VAR", str(tmp_path))
    first, second = Embedded(tmp_path, durable=False), Embedded(tmp_path, durable=False)
    first.start()
    second.start(adopt=True)
    second.stop()
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(first.redis_url, retry=None).ping()
    assert not (first.data / "postmaster.pid").exists()
    first.destroy()
