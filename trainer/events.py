"""The run's voice: one JSON line an event, appended to events.jsonl by rank 0 and by nobody else."""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.contract import Event, EventKind, Failure, VariantReport

STEP_METRICS_PER_S = 20
PROGRESS_PER_S = 4
EVERY_STEP_BELOW = 1000  # a run this short shows each of its steps


class Events:
    """Appends events. Without a path it stays silent, so that every rank may run the same code."""

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        self._seq = 0
        self._last_step_metric = 0.0
        self._last_progress = 0.0
        self.all_steps = False
        if path is not None:
            self._seq = _mend(path)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def state(self, phase: str) -> None:
        self._write(EventKind.STATE, {"phase": phase})

    def log(self, text: str, *, level: str = "info") -> None:
        self._write(EventKind.LOG, {"level": level, "text": text})

    def metric(self, name: str, value: float, *, step: int) -> None:
        if math.isfinite(value):  # NaN is not JSON; a loss that is not a number ends the run elsewhere
            self._write(EventKind.METRIC, {"step": step, "name": name, "value": value})

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
        self._write(
            EventKind.PROGRESS, {"step": step, "total_steps": total_steps, "epoch": epoch, "eta_s": eta_s}
        )

    def checkpoint(self, *, step: int, path: str) -> None:
        self._write(EventKind.CHECKPOINT, {"step": step, "path": path})

    def variant(self, report: VariantReport) -> None:
        self._write(EventKind.VARIANT, asdict(report))

    def error(self, reason: Failure, text: str, traceback: str = "") -> None:
        self._write(EventKind.ERROR, {"reason": reason, "text": text, "traceback": traceback})

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, kind: EventKind, data: dict[str, Any]) -> None:
        if self._file is None:
            return
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = Event(seq=self._seq + 1, at=at, kind=kind, data=data).to_line().encode()
        written = os.write(self._file, line)  # one write a line, so that a reader never sees two halves
        if written != len(line):
            raise OSError(28, "No space left on device", "events.jsonl")
        self._seq += 1


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
