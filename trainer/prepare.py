"""What a run works on: its folder and voice, and its rows after cleaning, splitting and encoding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.contract import Learns, Recipe, RunSpec
from trainer.control import Control
from trainer.data import Indices, Rows, Split, contradictions, take, without_doubles
from trainer.events import Events
from trainer.failures import BadData
from trainer.gauges import TABLES
from trainer.recipes import Recipe as RecipeModule
from trainer.recipes import recipe, tabular
from trainer.tasks import Classification

WATCHED = 0.1  # of the training rows, where early stopping asks for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    folder: Path
    spec: RunSpec
    events: Events
    control: Control


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All rows, raw and encoded. `transform` was fitted on the training rows alone."""

    recipe: RecipeModule
    transform: dict[str, Any]
    classes: tuple[str, ...]
    rows: Rows
    labels: npt.NDArray[np.generic]  # numbers of classes, or the numbers to predict
    split: Split
    encoded: npt.NDArray[np.generic]

    def tensors(self, rows: Indices, device: torch.device) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(self.recipe.batch(self.encoded[rows]))
        y = torch.from_numpy(self.labels[rows])
        return x.to(device, non_blocking=True), y.to(device, non_blocking=True)

    def guess(self) -> npt.NDArray[np.float32]:
        """What somebody answers to every held-out row who knows only how often each target occurs."""
        task, train = self.recipe.TASK, self.split.train
        given = task.guess(self.labels[train], len(self.classes), self.encoded[train], self.transform)
        return given(self.encoded[self.split.holdout]) if callable(given) else self._same_for_all(given)

    @property
    def baseline_accuracy(self) -> float:
        """The quality of the simplest guess."""
        return float(self.scores(self.guess()).mean())

    def _same_for_all(self, line: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.broadcast_to(line, (len(self.split.holdout), len(line)))

    def scores(self, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """One number for each held-out row, 1 for a perfect answer."""
        held = self.split.holdout
        return self.recipe.TASK.scores(answers, self.labels[held], self.encoded[held], self.transform)


def prepare(run: Run) -> Prepared:
    """Read the data of a run and make it ready, the same way on every rank. Raises BadData naming the row."""
    spec = run.spec
    module = recipe(spec.recipe)
    rows = module.read(run.folder, spec.data)
    if spec.recipe is not Recipe.IMAGE:
        rows, doubles = without_doubles(rows)
        if doubles:
            run.events.log(f"{doubles} rows are copies of others and were left out, {len(rows)} remain.")
    task = module.TASK
    if task.learns is Learns.CLASS:
        _warn_of_labels(run, rows)
    parts = task.split(rows, holdout=spec.hyperparameters.holdout, seed=spec.hyperparameters.seed)
    if spec.training.early_stopping is not None:
        parts = _set_aside(run, task, rows, parts)
    transform = learn(module, rows, parts.train)
    if spec.training.privacy_epsilon is not None and spec.recipe in TABLES:
        transform = tabular.without_pieces(transform)
    classes = task.classes(rows, transform)
    labels = task.targets(rows, classes, transform)
    encode = getattr(module, "encode_training", None)
    return Prepared(
        recipe=module,
        transform=transform,
        classes=classes,
        rows=rows,
        labels=labels,
        split=parts,
        encoded=encode(transform, rows, labels) if encode else module.encode(transform, rows.inputs),
    )


def learn(module: RecipeModule, rows: Rows, train: Indices) -> dict[str, Any]:
    """What must be known before the network, from the training rows alone."""
    own = getattr(module, "learn", None)
    found: dict[str, Any] = own(rows, train) if own else module.fit(take(rows.inputs, train))
    return found


def _set_aside(run: Run, task: Classification, rows: Rows, parts: Split) -> Split:
    """Some of the training rows say when to stop: chosen by the held-out rows, a model would look too good there.

    Where too few would be left to split again, the held-out rows say it, as they did before any were set aside.
    """
    seed = run.spec.hyperparameters.seed + 1
    # pictures say nothing about how to split, and taking them would copy every one
    flat = {name: column for name, column in rows.inputs.items() if column.ndim == 1}
    try:
        inner = task.split(replace(rows, inputs=flat).take(parts.train), holdout=WATCHED, seed=seed)
    except BadData as reason:
        run.events.log(
            "No training rows can be set aside to tell when to stop, so the held-out rows tell it; the model may look "
            f"slightly better on them than it is. ({reason})",
            level="warning",
        )
        return parts
    run.events.log(f"{len(inner.holdout)} rows are set aside to tell when to stop.")
    return Split(train=parts.train[inner.train], holdout=parts.holdout, watched=parts.train[inner.holdout])


def _warn_of_labels(run: Run, rows: Rows) -> None:
    lonely = [name for name, count in Counter(map(str, rows.labels)).items() if count == 1]
    if lonely:
        some = ", ".join(lonely[:5])
        run.events.log(
            f"{len(lonely)} classes have a single row and are not tested: {some}.", level="warning"
        )
    torn = contradictions(rows)
    if torn:
        run.events.log(
            f"{torn} rows have the same content as another row and a different label.", level="warning"
        )
