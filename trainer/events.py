"""The run's voice: one JSON line an event, appended to events.jsonl by rank 0 and by nobody else.

Speaking never waits for the disk: events go into a queue, and a thread writes them a few times a second.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.contract import Event, EventKind, Failure, VariantReport

STEP_METRICS_PER_S = 20
PROGRESS_PER_S = 4
EVERY_STEP_BELOW = 1000  # a run this short shows each of its steps
WRITE_EVERY_S = 0.05
MOST_WAITING = 20_000  # metrics beyond these are dropped and counted; nothing else ever is
RESOURCES_EVERY_S = 5.0
FIRST_RESOURCES_S = 1.0

_Waiting = tuple[EventKind, float, dict[str, Any]]


class Events:
    """Appends events. Without a path it stays silent, so that every rank may run the same code."""

    def __init__(
        self,
        path: Path | None,
        *,
        usage: Callable[[], dict[str, Any]] | None = None,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._file: int | None = None
        self._seq = 0
        self._last_step_metric = 0.0
        self._last_progress = 0.0
        self.all_steps = False
        self._waiting: deque[_Waiting] = deque()
        self._most_waiting = most_waiting
        self._dropped = 0
        self._error: OSError | None = None
        self._writing = threading.Lock()  # held by whoever takes events from the queue to the file
        self._closing = threading.Event()
        self._usage = usage
        self._thread: threading.Thread | None = None
        if path is not None:
            self._seq = _mend(path)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._thread = threading.Thread(target=self._write_on, name="events", daemon=True)
            self._thread.start()

    def state(self, phase: str) -> None:
        self._say(EventKind.STATE, {"phase": phase})

    def log(self, text: str, *, level: str = "info") -> None:
        self._say(EventKind.LOG, {"level": level, "text": text})

    def metric(self, name: str, value: float, *, step: int) -> None:
        if math.isfinite(value):  # NaN is not JSON; a loss that is not a number ends the run elsewhere
            self._say(EventKind.METRIC, {"step": step, "name": name, "value": value})

    def step_metric(self, name: str, value: float, *, step: int) -> None:
        """A metric that comes with every step: thinned out in time unless the run is short."""
        now = time.monotonic()
        if self.all_steps or now - self._last_step_metric >= 1 / STEP_METRICS_PER_S:
            self._last_step_metric = now
            self.metric(name, value, step=step)

    def progress(self, *, step: int, total_steps: int, epoch: int, eta_s: float | None) -> None:
        now = time.monotonic()
        if step < total_steps and now - self._last_progress < 1 / PROGRESS_PER_S:
            return
        self._last_progress = now
        eta_s = None if eta_s is None else round(eta_s, 1)
        self._say(
            EventKind.PROGRESS, {"step": step, "total_steps": total_steps, "epoch": epoch, "eta_s": eta_s}
        )

    def checkpoint(self, *, step: int, path: str) -> None:
        self._say(EventKind.CHECKPOINT, {"step": step, "path": path})

    def variant(self, report: VariantReport) -> None:
        self._say(EventKind.VARIANT, asdict(report))

    def error(self, reason: Failure, text: str, traceback: str = "") -> None:
        """Last words: written before this returns, even when earlier ones could not be."""
        self._error = None
        self._say(EventKind.ERROR, {"reason": reason, "text": text, "traceback": traceback})
        self.flush()

    def flush(self) -> None:
        """Return once all that was said is in the file; raise OSError if it cannot be."""
        self._raise_error()
        with self._writing:
            self._drain()

    def close(self) -> None:
        """Write what is left and stop. What cannot be written by now is lost: the caller has flushed."""
        if self._file is None:
            return
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._writing:
            with contextlib.suppress(OSError):
                self._drain()
            os.close(self._file)
            self._file = None

    def _say(self, kind: EventKind, data: dict[str, Any]) -> None:
        if self._file is None:
            return
        self._raise_error()
        if kind is EventKind.METRIC and len(self._waiting) >= self._most_waiting:
            self._dropped += 1
            return
        self._waiting.append((kind, time.time(), data))

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write_on(self) -> None:
        """The thread: write what waits, and look at the machine now and then."""
        next_usage = time.monotonic() + FIRST_RESOURCES_S
        while not self._closing.wait(WRITE_EVERY_S):
            if self._usage is not None and time.monotonic() >= next_usage:
                next_usage = time.monotonic() + RESOURCES_EVERY_S
                self._waiting.append((EventKind.RESOURCE, time.time(), self._usage()))
            if self._waiting and self._error is None:
                with self._writing:
                    try:
                        self._drain()
                    except OSError as error:
                        self._error = error  # raised where somebody can act on it: at the next event

    def _drain(self) -> None:
        """Everything that waits, as whole lines in one write. On a full disk only metrics are given up."""
        if self._file is None:
            return
        if self._dropped:
            text = f"{self._dropped} metrics were left out: they came faster than they could be written."
            self._waiting.append((EventKind.LOG, time.time(), {"level": "warning", "text": text}))
            self._dropped = 0
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not taken:
            return
        lines = []
        for number, (kind, at, data) in enumerate(taken, start=self._seq + 1):
            when = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            lines.append(Event(seq=number, at=when, kind=kind, data=data).to_line())
        content = "".join(lines).encode()
        try:
            self._append(content)
        except OSError:
            self._waiting.extendleft(item for item in reversed(taken) if item[0] is not EventKind.METRIC)
            raise
        self._seq += len(taken)

    def _append(self, content: bytes) -> None:
        assert self._file is not None
        before = os.fstat(self._file).st_size
        if os.write(self._file, content) != len(content):
            os.ftruncate(self._file, before)  # half a line would swallow the next one
            raise OSError(28, "No space left on device", "events.jsonl")


def _mend(path: Path) -> int:
    """Cut off a last line that a killed process left half written; return the last whole line's seq."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end != len(content):
            file.truncate(end)  # readers take whole lines only, so nobody has seen it
    lines = content[:end].splitlines()
    return Event.from_line(lines[-1].decode()).seq if lines else 0
