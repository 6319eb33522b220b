"""What became of a run: from its exit code, its last words and what was asked of it to one outcome."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.compute.local import LOG_FILE
from jobs.states import JobStatus, Reason
from trainer.contract import Event, EventKind, Exit

KNOWN_FAILURES = frozenset(
    {
        Reason.BAD_SPEC,
        Reason.BAD_DATA,
        Reason.DIVERGED,
        Reason.OUT_OF_MEMORY,
        Reason.DISK_FULL,
        Reason.STALLED,
        Reason.KILLED,
        Reason.CRASHED,
    }
)
_KILLED_BY_TORCHRUN = re.compile(r"^\s*exitcode\s*: -9\b", re.MULTILINE)  # torchrun itself ends with 1
TAIL_LINES = 30
TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """What the engine said that decides how it ended."""

    reason: Reason = Reason.NONE
    text: str = ""
    phase: str = ""
    stepped: bool = False  # a first step was told

    def after(self, events: Iterable[Event]) -> LastWords:
        """These words, unless the events hold later ones."""
        reason, text, phase, stepped = self.reason, self.text, self.phase, self.stepped
        for event in events:
            stepped = stepped or event.kind in (EventKind.METRIC, EventKind.PROGRESS)
            if event.kind is EventKind.STATE:
                phase = str(event.data.get("phase", ""))
            elif event.kind is EventKind.ERROR:
                said = str(event.data.get("reason", ""))
                reason = Reason(said) if said in KNOWN_FAILURES else Reason.CRASHED
                text = str(event.data.get("text", ""))
        return LastWords(reason=reason, text=text, phase=phase, stepped=stepped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended. `status` None: in line again, unless it ended so too often."""

    status: JobStatus | None
    reason: Reason = Reason.NONE
    error: str = ""


def decide_outcome(
    *, exit_code: int, words: LastWords, finished: bool, stopped_for: Reason, preempted: bool, tail: str
) -> Outcome:
    """`finished`: the manifest is there. `stopped_for`: somebody or a limit asked this job to stop."""
    if exit_code == Exit.OK and finished:
        return Outcome(status=JobStatus.SUCCEEDED)  # done before anybody could stop it
    if stopped_for:
        return Outcome(status=stopped_for.final_status, reason=stopped_for)
    if preempted or words.phase == "preempted" or exit_code == Exit.PREEMPTED:
        return Outcome(status=None, reason=Reason.PREEMPTED)
    if words.reason.retryable:
        return Outcome(status=None, reason=words.reason, error=words.text)
    if words.reason:
        return Outcome(status=JobStatus.FAILED, reason=words.reason, error=words.text)
    if exit_code == Exit.OK:
        return Outcome(
            status=JobStatus.FAILED, reason=Reason.CRASHED, error="The engine ended without a result."
        )
    if exit_code in (-signal.SIGKILL, Exit.KILLED) or _KILLED_BY_TORCHRUN.search(tail):
        return Outcome(status=None, reason=Reason.KILLED, error=_silent(-signal.SIGKILL))
    return Outcome(
        status=JobStatus.FAILED, reason=Reason.CRASHED, error=last_line(tail) or _silent(exit_code)
    )


def log_tail(folder: Path) -> str:
    """The end of what the processes printed, for somebody who must find out why."""
    path = folder / LOG_FILE
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])


def last_line(tail: str) -> str:
    """The last line that says something; torchrun frames its summary in rules."""
    for line in reversed(tail.splitlines()):
        if any(letter.isalpha() for letter in line):
            return line.strip()[:500]
    return ""


def _silent(exit_code: int) -> str:
    if exit_code < 0:
        return (
            f"The processes were killed by signal {-exit_code} and left no message; memory may have run out."
        )
    return f"The engine ended with exit code {exit_code} and left no message."
