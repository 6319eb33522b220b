"""The whole of Tauon as a person starts it: `manage.py up` in its own folder, on free ports that we own."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).resolve().parent.parent


def _end_with_us() -> None:
    """A killed test run takes its installation along: the kernel sends it the Ctrl-C that nobody else will."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


class Stack:
    """One running installation. `url`, `gateway_url`, `sign_in` (path) and `token` come from what it printed."""

    def __init__(self, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tauon-stack-"))
        self.lines: list[str] = []
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("TAUON_", "PYTEST_"))}
        for name in ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE"):
            clean.pop(name, None)
        self.environment = clean | {"TAUON_VAR": str(self.folder), "TAUON_LOCAL_GPUS": "0", **environment}
        self.process: subprocess.Popen[str] | None = None
        self.url = self.gateway_url = self.sign_in = self.token = ""

    def start(self, *arguments: str, within_s: float = 120) -> Stack:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", *arguments],
            cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_us,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for(r"Ctrl-C stops everything", within_s)
        said = self.log()
        self.url = re.search(r"Tauon is up at (\S+)", said)[1]
        self.sign_in = re.search(r"(/welcome/\S+)", said)[1]
        if found := re.search(r"Bearer (tau_\w+)", said):
            self.token = found[1]
        self.gateway_url = re.search(r"Endpoints answer at (\S+)", said)[1]
        return self

    def stop(self, *, within_s: float = 60) -> None:
        """Ctrl-C, as a person does."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            raise

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def log(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not re.search(pattern, self.log()):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"{pattern!r} was not printed; the log says:\n{self.log()[-6000:]}")
            time.sleep(0.1)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
