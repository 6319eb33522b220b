"""What a model's answers mean: how rows are split, what is right, what the simplest guess scores, what is served.

Everything that differs between telling classes apart, predicting a number, ranking items and going on with a
text stands here, once; the loop, the measuring, the gate and the serving ask the recipe's TASK. numpy only, for
serving reads this too.

A *score* is one number for each held-out row, 1 for a perfect answer; its mean is the quality of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data import Indices, Rows, Split, classes_of, split
from trainer.failures import BadData
from trainer.roles import Learns, Quality

Array = npt.NDArray[np.generic]
Answers = npt.NDArray[np.float32]  # one line a row, as the graph gives them
Scores = npt.NDArray[np.float64]
Transform = Mapping[str, Any]
Guess = Answers | Callable[[Array], Answers]

MIN_ROWS = 10


class Classification:
    """One of several classes; the graph answers their probabilities."""

    learns = Learns.CLASS
    quality = Quality.ACCURACY
    output = "probabilities"  # what the graph calls its answer
    guess_name = "commonest class"

    def split(self, rows: Rows, *, holdout: float, seed: int) -> Split:
        return split(numbers_of(rows.labels, classes_of(rows.labels)), holdout=holdout, seed=seed)

    def classes(self, rows: Rows, transform: Transform) -> tuple[str, ...]:
        return classes_of(rows.labels)

    def targets(self, rows: Rows, classes: Sequence[str], transform: Transform) -> Array:
        return numbers_of(rows.labels, classes)

    def scores(self, answers: Answers, targets: Array, encoded: Array, transform: Transform) -> Scores:
        return (answers.argmax(axis=1) == targets).astype(np.float64)

    def guess(self, targets: Array, classes: int, encoded: Array, transform: Transform) -> Guess:
        """What somebody answers who has seen only how often each target occurs: one line for all rows.

        Or a function from encoded rows to answers, where the simple thing to do depends on the row.
        """
        shares: Answers = (np.bincount(targets, minlength=classes) / max(1, len(targets))).astype(np.float32)
        return shares

    def figures(
        self, answers: Answers, targets: Array, encoded: Array, transform: Transform
    ) -> dict[str, float]:
        """Other measures of the same answers, by name."""
        return {}

    def outputs(self, classes: Sequence[str], transform: Transform) -> list[dict[str, Any]]:
        """What is served, in Open Inference Protocol v2 words; the graph's own answer comes first."""
        return [
            {"name": self.output, "datatype": "FP32", "shape": [-1, len(classes)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ]

    def serve(
        self, name: str, answers: Answers, encoded: Array, classes: Sequence[str], transform: Transform
    ) -> Array:
        """The values of one of `outputs` for these rows."""
        if name == self.output:
            return answers
        return texts(classes[index] for index in answers.argmax(axis=1))


class Regression(Classification):
    """A number; the graph answers it in the units of the data."""

    learns = Learns.NUMBER
    quality = Quality.R2
    output = "prediction"
    guess_name = "the mean"

    def split(self, rows: Rows, *, holdout: float, seed: int) -> Split:
        """Every part of the range is held out in the same share: rows in tenths by their value."""
        values = rows.labels.astype(np.float64)
        if len(values) < MIN_ROWS:
            raise BadData(
                f"Only {len(values)} different rows: at least {MIN_ROWS} are needed to train and to test."
            )
        if float(values.std()) == 0.0:
            raise BadData(f"All rows have the target {values[0]:g}: there is nothing to learn.")
        ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        bands = min(10, len(values) // 5)
        return split((ranks * bands // len(values)).astype(np.int64), holdout=holdout, seed=seed)

    def classes(self, rows: Rows, transform: Transform) -> tuple[str, ...]:
        return (str(transform["target"]["name"]),)

    def targets(self, rows: Rows, classes: Sequence[str], transform: Transform) -> Array:
        return rows.labels.astype(np.float32)

    def scores(self, answers: Answers, targets: Array, encoded: Array, transform: Transform) -> Scores:
        """One minus the squared error over the variance: the mean of it is R²."""
        wanted = targets.astype(np.float64)
        spread = float(wanted.var()) or 1.0
        scores: Scores = 1.0 - (answers[:, 0].astype(np.float64) - wanted) ** 2 / spread
        return scores

    def guess(self, targets: Array, classes: int, encoded: Array, transform: Transform) -> Guess:
        return np.asarray([targets.mean(dtype=np.float64)], dtype=np.float32)

    def figures(
        self, answers: Answers, targets: Array, encoded: Array, transform: Transform
    ) -> dict[str, float]:
        errors = answers[:, 0].astype(np.float64) - targets.astype(np.float64)
        return {"MAE": float(np.abs(errors).mean()), "RMSE": float(np.sqrt((errors**2).mean()))}

    def outputs(self, classes: Sequence[str], transform: Transform) -> list[dict[str, Any]]:
        return [{"name": self.output, "datatype": "FP32", "shape": [-1]}]

    def serve(
        self, name: str, answers: Answers, encoded: Array, classes: Sequence[str], transform: Transform
    ) -> Array:
        return answers[:, 0]


def numbers_of(labels: Array, classes: Sequence[str]) -> Indices:
    place = {name: index for index, name in enumerate(classes)}
    return np.asarray([place[str(label)] for label in labels], dtype=np.int64)


def texts(values: Any) -> npt.NDArray[np.object_]:
    found = list(values)
    column = np.empty(len(found), dtype=object)
    column[:] = found
    return column


CLASSIFICATION = Classification()
REGRESSION = Regression()
