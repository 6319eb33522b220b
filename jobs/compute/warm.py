"""The warm parent of this machine: started when first needed, started again when it dies, gone with us.

It has imported torch and forks the processes of a run in a tenth of a second (see `trainer.warm`).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from django.conf import settings

log = logging.getLogger(__name__)

LEASH = Path(__file__).with_name("leash.py")
SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes
WAIT_S = 6.0  # for a parent that is still importing; a cancel must not wait longer
LONGEST_PAUSE_S = 60.0


class WarmParent:
    """Keeps one `python -m trainer.warm serve` alive for this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._guard = threading.Lock()
        self._owner = 0  # a forked child starts its own: the kernel ends ours with us, not with the child
        self._over = threading.Event()
        self._ready = threading.Event()
        self._failed = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self.path = Path()

    def warm_up(self) -> None:
        """Begin to import, without waiting."""
        with self._guard:
            if self._thread is not None and self._owner == os.getpid() and self._thread.is_alive():
                return
            self._owner = os.getpid()
            self._over, self._ready, self._failed = threading.Event(), threading.Event(), threading.Event()
            self.path = _socket_path()
            # a thread of its own: Linux ends the parent together with the thread that started it
            self._thread = threading.Thread(target=self._keep, name="warm parent", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def socket(self, *, wait_s: float = WAIT_S) -> Path | None:
        """Where the parent listens, or None if it does not come up."""
        self.warm_up()
        while not self._ready.wait(0.05):
            wait_s -= 0.05
            if wait_s <= 0 or self._failed.is_set() or self._over.is_set():
                return None
        return self.path

    @property
    def pid(self) -> int | None:
        """Of the parent that lives now."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def close(self) -> None:
        """End it for good. Runs it has started go on until whoever asked for them is gone."""
        if self._owner != os.getpid() or self._thread is None:
            return
        self._over.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join(timeout=5)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()

    def _keep(self) -> None:
        pause_s = 1.0
        while not self._over.is_set():
            try:
                lived = self._once()
            except OSError:
                log.exception("the warm parent cannot be started")
                lived = False
            self._ready.clear()
            if self._over.is_set():
                return
            if not lived:
                self._failed.set()  # nobody waits for one that cannot start
            log.warning("the warm parent ended", extra={"again_in_s": pause_s})
            self._over.wait(pause_s if not lived else 0)
            pause_s = 1.0 if lived else min(LONGEST_PAUSE_S, 2 * pause_s)

    def _once(self) -> bool:
        """Start one and stay with it to its end; whether it ever was ready."""
        command = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        self._process = subprocess.Popen(
            [*command, sys.executable, "-P", "-m", "trainer.warm", "serve", str(self.path)],
            cwd=self.path.parent,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with self._process as process:
            if self._over.is_set():  # closed while we were starting it
                process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            ready = process.stdout.readline() == "ready\n"
            if ready:
                self._failed.clear()
                self._ready.set()
            process.wait()
        return ready


def _socket_path() -> Path:
    """In a folder only we may enter: whoever can reach the socket can start a run."""
    home = Path(settings.VAR_DIR) / "warm"
    prefix = f"{os.getpid()}-"
    if len(os.fsencode(home / prefix)) + 12 >= SOCKET_PATH_LIMIT:
        return Path(tempfile.mkdtemp(prefix="tauon-")) / "s"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_the_dead(home)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=home)) / "s"


def _forget_the_dead(home: Path) -> None:
    """Folders of processes that were killed and could not tidy up."""
    for folder in home.glob("*-*"):
        if not Path(f"/proc/{folder.name.split('-')[0]}").exists():
            with contextlib.suppress(OSError):
                (folder / "s").unlink(missing_ok=True)
                folder.rmdir()
