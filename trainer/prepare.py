"""What a run works on: its folder and voice, and its rows after cleaning, splitting and encoding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.contract import Recipe, RunSpec
from trainer.control import Control
from trainer.data import Indices, Rows, Split, classes_of, split, take, without_doubles
from trainer.events import Events
from trainer.recipes import Recipe as RecipeModule
from trainer.recipes import recipe


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
    labels: Indices
    split: Split
    encoded: npt.NDArray[np.generic]

    def tensors(self, rows: Indices, device: torch.device) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(self.recipe.batch(self.encoded[rows]))
        y = torch.from_numpy(self.labels[rows])
        return x.to(device, non_blocking=True), y.to(device, non_blocking=True)

    @property
    def commonest(self) -> int:
        """The most frequent class of the training rows."""
        return int(np.bincount(self.labels[self.split.train]).argmax())

    @property
    def baseline_accuracy(self) -> float:
        """What always answering the most frequent training class would score on the held-out rows."""
        return float((self.labels[self.split.holdout] == self.commonest).mean())


def prepare(run: Run) -> Prepared:
    """Read the data of a run and make it ready, the same way on every rank. Raises BadData naming the row."""
    spec = run.spec
    module = recipe(spec.recipe)
    rows = module.read(run.folder, spec.data)
    if spec.recipe is not Recipe.IMAGE:
        rows, doubles = without_doubles(rows)
        if doubles:
            run.events.log(f"{doubles} rows are copies of others and were left out, {len(rows)} remain.")
    classes = classes_of(rows.labels)
    number = {name: index for index, name in enumerate(classes)}
    labels = np.asarray([number[str(label)] for label in rows.labels], dtype=np.int64)
    lonely = [name for name, count in Counter(map(str, rows.labels)).items() if count == 1]
    if lonely:
        some = ", ".join(lonely[:5])
        run.events.log(
            f"{len(lonely)} classes have a single row and are not tested: {some}.", level="warning"
        )
    parts = split(labels, holdout=spec.hyperparameters.holdout, seed=spec.hyperparameters.seed)
    transform = module.fit(take(rows.inputs, parts.train))
    return Prepared(
        recipe=module,
        transform=transform,
        classes=classes,
        rows=rows,
        labels=labels,
        split=parts,
        encoded=module.encode(transform, rows.inputs),
    )
