"""How the outside stops a run: control.json, SIGTERM, and the death of the parent process."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from trainer.failures import Cancelled, Preempted

POLL_EVERY_S = 0.5
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it dies, so that no rank is orphaned.

    The signal is tied to the *thread* that started us: start the engine from a thread that lives as long
    as the run. TAUON_NO_PDEATHSIG=1 switches it off.
    """
    if not sys.platform.startswith("linux") or os.environ.get("TAUON_NO_PDEATHSIG") == "1":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Control:
    """Watches control.json and SIGTERM. Asking is cheap: the file is read at most twice a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_read = 0.0
        self.cancelled = False
        self.preempted = False

    def listen(self) -> None:
        """Note SIGTERM instead of dying of it: a half-written checkpoint helps nobody."""
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def poll(self, *, now: bool = False) -> None:
        """Read control.json if half a second has passed since the last look."""
        if self.cancelled or (not now and time.monotonic() < self._next_read):
            return
        self._next_read = time.monotonic() + POLL_EVERY_S
        try:
            order = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):  # ValueError: caught while it is being written
            return
        self.cancelled = isinstance(order, dict) and order.get("cancel") is True

    def stop_here(self) -> None:
        """Raise Cancelled or Preempted if somebody asked. For places where this process works alone."""
        self.poll()
        if self.cancelled:
            raise Cancelled
        if self.preempted:
            raise Preempted

    def _on_sigterm(self, *_: object) -> None:
        self.preempted = True
