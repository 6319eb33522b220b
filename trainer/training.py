"""How the loop goes about its work: the section `training` of a run spec. Standard library only.

Read it through `trainer.contract`, which names everything here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trainer.reading import build, require
from trainer.roles import Recipe

SCHEDULES = ("constant", "cosine", "linear")
COMPILE = ("off", "on")
PRIVATE = (Recipe.IMAGE, Recipe.TEXT, Recipe.TABULAR, Recipe.REGRESSION)  # may be trained privately
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
    # differentially private training: what may be learned of a single row is bounded; None: it is not
    privacy_epsilon: float | None = None
    privacy_delta: float = 1e-5  # below one over the number of training rows
    privacy_clip: float = 1.0  # longest gradient of a single row
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
    for name in ("stall_after_s", "privacy_epsilon", "privacy_delta", "privacy_clip"):
        positive(name)
    require(training.privacy_delta < 1, "/training/privacy_delta", "must be below 1")
    if early := training.early_stopping:
        known = ", ".join(WATCHED_METRICS)
        pointer = "/training/early_stopping"
        require(early.metric in WATCHED_METRICS, f"{pointer}/metric", f"must be one of {known}")
        require(early.patience >= 1, f"{pointer}/patience", "must be at least 1")


def check_privacy(training: TrainingSpec, recipe: Recipe, processes: int) -> None:
    """Raise BadSpec where private training is asked for and not offered."""
    if training.privacy_epsilon is None:
        return
    known = ", ".join(PRIVATE)
    require(recipe in PRIVATE, "/training/privacy_epsilon", f"is offered for {known}")
    require(processes == 1, "/training/privacy_epsilon", "needs a single process")
    require(training.compile == "off", "/training/compile", "must be off in private training")
    pieces = training.grad_accumulation in ("auto", 1)
    require(pieces, "/training/grad_accumulation", "is not used in private training")
