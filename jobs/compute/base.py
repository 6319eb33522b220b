"""Where a gang of processes runs: one small contract between the dispatcher and a machine or cluster.

A handle is plain JSON, kept with the attempt, so that another process can find and end the same gang later.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.scheduling import Capacity

Handle = dict[str, Any]
LOST = -1  # what `poll` says of a gang that is gone and whose exit code nobody saw


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """What is to be started: the engine over one run folder, in so many processes."""

    run: str  # the attempt's public id; every process of the gang carries it
    folder: Path  # named like the run
    spec: Path
    processes: int
    gpus: tuple[int, ...] = ()
    compiles: bool = False  # torch.compile will run in it
    phase: str = "run"  # what the engine is told to do: "run" trains, "predict" answers rows


class Compute(Protocol):
    """A place that runs gangs."""

    def capacity(self) -> Capacity:
        """What there is in all, whoever holds it."""
        ...

    def start(self, gang: Gang) -> Handle:
        """Start every process of the gang, or none; returns at once."""
        ...

    def poll(self, handle: Handle) -> int | None:
        """None while it runs, else its exit code (LOST where nobody can know)."""
        ...

    def signal(self, handle: Handle, number: int) -> None:
        """Send a signal to the gang's leader, who passes it on. Silent if it is gone."""
        ...

    def stop(self, handle: Handle, *, grace_s: float) -> None:
        """End the whole gang: politely, then after `grace_s` for good. Nothing of it lives afterwards."""
        ...

    def stop_run(self, run: str) -> None:
        """End whatever still carries this run's mark, known handle or not."""
        ...
