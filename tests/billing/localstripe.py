"""A Stripe of our own: `localstripe` in a process and an environment of its own (GPL: never imported)."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VERSION = "1.15.10"


def environment(folder: Path) -> Path:
    """The Python of an environment with localstripe; made once, skipped where nothing can be installed."""
    if named := os.environ.get("TAUON_LOCALSTRIPE"):
        return Path(named)
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side, and one makes it for all
        _install(python, folder)
    return python


def _install(python: Path, folder: Path) -> None:
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "-q", f"localstripe=={VERSION}"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"localstripe cannot be installed here: {done.stderr[-200:]}")
        (folder / "installed").write_text(VERSION)


@contextmanager
def running(python: Path, folder: Path) -> Iterator[str]:
    """Its address while it runs."""
    port = _free_port()
    with (folder / "localstripe.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-m", "localstripe", "--from-scratch", "--port", str(port)],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "localstripe ended"
        try:
            urllib.request.urlopen(f"{url}/v1/customers", timeout=2).close()
        except urllib.error.HTTPError:
            return  # it answers, and wants a key
        except OSError:
            time.sleep(0.1)
            continue
        return
    raise AssertionError("localstripe did not start")
