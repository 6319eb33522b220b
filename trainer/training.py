"""How the loop goes about its work: the section `training` of a run spec. Standard library only.

Read it through `trainer.contract`, which names everything here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trainer.reading import build, require

SCHEDULES = ("constant", "cosine", "linear")
COMPILE = ("off", "on")
WATCHED_METRICS = ("val/loss", "val/accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Stop once the metric was not better for `patience` epochs on end; the best weights are the result."""

    metric: str = "val/loss"  # one of WATCHED_METRICS
    patience: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How the loop goes about its work. The defaults suit most runs."""

    schedule: str = "cosine"  # of the learning rate after the warm-up; one of SCHEDULES
    warmup_steps: int | None = None  # None: a twentieth of all steps
    clip_norm: float | None = None  # longest gradient let through
    # pieces a process's share of a batch is cut into; "auto": one, and as many more as there are fewer
    # processes than the spec asks for, so that each piece needs the memory it always needed
    grad_accumulation: int | str = "auto"
    early_stopping: EarlyStopping | None = None
    compile: str = "off"  # "on": torch.compile, worth its half minute on runs of many minutes
    checkpoint_every_s: float = 10.0
    checkpoint_every_steps: int | None = None
    keep_checkpoints: int = 2  # the newest ones; the best is kept beside them
    stall_after_s: float = 300.0  # a step that takes longer, and ten times the usual, ends the run


def read_training(raw: dict[str, Any]) -> TrainingSpec:
    """Read the section from plain JSON, or raise BadSpec naming the field."""
    early = raw.get("early_stopping")
    if early is not None:
        require(isinstance(early, dict), "/training/early_stopping", "must be an object or null")
        raw["early_stopping"] = build(EarlyStopping, early, "/training/early_stopping")
    return build(TrainingSpec, raw, "/training")


def check_training(training: TrainingSpec) -> None:
    """Raise BadSpec for a value that no loop could use."""

    def positive(name: str, least: float = 0.0) -> None:
        value = getattr(training, name)
        holds = value is None or least < value < math.inf
        require(holds, f"/training/{name}", f"must be above {least:g}")

    def one_of(name: str, known: tuple[str, ...]) -> None:
        require(getattr(training, name) in known, f"/training/{name}", f"must be one of {', '.join(known)}")

    one_of("schedule", SCHEDULES)
    one_of("compile", COMPILE)
    pieces = training.grad_accumulation
    fits = pieces == "auto" or (isinstance(pieces, int) and pieces >= 1)
    require(fits, "/training/grad_accumulation", 'must be "auto" or a number from 1 on')
    for name in ("clip_norm", "checkpoint_every_s", "checkpoint_every_steps", "keep_checkpoints"):
        positive(name)
    positive("warmup_steps", least=-1)
    positive("stall_after_s")
    if early := training.early_stopping:
        known = ", ".join(WATCHED_METRICS)
        pointer = "/training/early_stopping"
        require(early.metric in WATCHED_METRICS, f"{pointer}/metric", f"must be one of {known}")
        require(early.patience >= 1, f"{pointer}/patience", "must be at least 1")
