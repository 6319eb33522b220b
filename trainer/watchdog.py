"""Ends a run that hangs: a lost machine or a stopped peer would otherwise burn money in silence."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from statistics import median

USUAL_STEPS = 50
PATIENCE = 10  # times the usual step
FIRST_STEP_S = 300.0  # the first step may compile, warm caches and wait for slow peers


class Watchdog:
    """Calls `on_stall(text, traceback)` from its own thread when `step` was not called for too long."""

    def __init__(self, *, limit_s: float, first_s: float, on_stall: Callable[[str, str], None]) -> None:
        self._limit_s, self._first_s, self._on_stall = limit_s, max(limit_s, first_s), on_stall
        self._took: deque[float] = deque(maxlen=USUAL_STEPS)
        self._last = self._last_step = time.monotonic()
        self._number: int | None = None
        self._stop = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._last = self._last_step = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def step(self, number: int) -> None:
        """A step is done."""
        now = time.monotonic()
        if self._number is not None:
            self._took.append(now - self._last_step)
        self._number, self._last, self._last_step = number, now, now

    def beat(self) -> None:
        """Something else moved on: a batch of validation, a checkpoint."""
        self._last = self._last_step = time.monotonic()

    @property
    def allowed_s(self) -> float:
        if self._number is None:
            return self._first_s
        usual = list(self._took)
        return max(self._limit_s, PATIENCE * median(usual)) if usual else self._limit_s

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._limit_s / 10)):
            silent_s = time.monotonic() - self._last
            if silent_s > self.allowed_s:
                after = "the first step" if self._number is None else f"the one after step {self._number}"
                text = (
                    f"No step was finished for {silent_s:.0f} s (waiting for {after}): a process or a machine "
                    f"hangs. Start the run again; it goes on from its last checkpoint."
                )
                frame = sys._current_frames().get(self._watched)
                self._on_stall(text, "".join(traceback.format_stack(frame)) if frame else "")
                return
