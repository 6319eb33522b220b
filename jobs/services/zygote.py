"""The keeper's warm parent of model workers (`trainer.zygote`): asked for a worker, it forks one.

Starting Python and ONNX Runtime anew takes a few hundred milliseconds, a fork about twenty. Where the zygote does not
answer, the caller starts a cold process and the next call tries a new zygote.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from django.conf import settings

log = logging.getLogger(__name__)

READY_LIMIT_S = 20.0
FORK_LIMIT_S = 5.0


class Zygote:
    """Started when it is first needed, ended by `close()` or with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    def ensure(self) -> None:
        """Start it if it is not there, and wait until it has imported everything."""
        if self._orders is not None and self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # -P: no module is ever imported from the folder it happens to be started in
                [sys.executable, "-P", "-m", "trainer.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={
                    "PATH": os.defpath,
                    "PYTHONPATH": str(settings.BASE_DIR),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "LANG": "C.UTF-8",
                    "OMP_NUM_THREADS": "1",
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.settimeout(READY_LIMIT_S)
        self._orders = ours
        try:
            if ours.recv(16) != b"ready":
                raise ConnectionError("it ended while it was being started")
        except OSError as error:
            log.warning("the warm parent of model workers does not start: %s", error)
            self.close()

    def start(self, folder: Path, environment: Mapping[str, str]) -> Forked | None:
        """Fork a worker for the serve.json in this folder; None where the zygote cannot."""
        self.ensure()
        if self._orders is None:
            return None
        order = {
            "config": str(folder / "serve.json"),
            "folder": str(folder),
            "environment": dict(environment),
        }
        news, tell = os.pipe()
        try:
            with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
                files = [out.fileno(), err.fileno(), tell]
                socket.send_fds(self._orders, [json.dumps(order).encode()], files)
        except OSError as error:
            log.warning("the warm parent of model workers does not answer: %s", error)
            os.close(news)
            self.close()
            return None
        finally:
            os.close(tell)
        try:
            return Forked(news)
        except ConnectionError as error:
            log.warning("the warm parent of model workers forked nothing: %s", error)
            self.close()
            return None

    def close(self) -> None:
        """End it, and with it every worker it forked that is still there."""
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Forked:
    """A worker the zygote forked: not our child, so we hear of its end through a pipe."""

    def __init__(self, news: int) -> None:
        self._news: int | None = news
        self._pidfd: int | None = None
        self._said = b""
        self._code: int | None = None
        if not self._hear(FORK_LIMIT_S) or b"\n" not in self._said:
            self._forget()
            raise ConnectionError("no word of it")
        first, self._said = self._said.split(b"\n", 1)
        self.pid = int(first)
        if self._said.endswith(b"\n"):  # it has ended already
            self._end(int(self._said))
            return
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(self.pid)  # the pid may be somebody else's one day

    def poll(self) -> int | None:
        """Its exit code; -9 where the zygote died, for Linux killed it then."""
        while self._code is None and self._hear(0):
            pass
        return self._code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def wait(self) -> int | None:
        """Until it has ended, or for ten seconds: a process no signal reaches must not hold up all others."""
        for _second in range(10):
            if self._code is not None:
                break
            self._hear(1.0)
        return self._code

    def __del__(self) -> None:
        self._forget()

    def _send(self, number: int) -> None:
        if self._pidfd is not None and self._code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _hear(self, timeout_s: float) -> bool:
        """Read what there is; False if there was nothing."""
        if self._news is None or not select.select([self._news], [], [], timeout_s)[0]:
            return False
        said = os.read(self._news, 64)
        self._said += said
        if hasattr(self, "pid") and self._said.endswith(b"\n"):
            self._end(int(self._said))
        elif not said:
            self._end(-signal.SIGKILL)
        return True

    def _end(self, code: int) -> None:
        self._code = code
        self._forget()

    def _forget(self) -> None:
        for name in ("_news", "_pidfd"):
            fd = getattr(self, name, None)
            if fd is not None:
                os.close(fd)
                setattr(self, name, None)
