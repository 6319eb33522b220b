"""Sentiment and topic of a sentence, as in finance news: one network with two heads.

Both heads read the same vector. Their logits are added up to one table of (sentiment, topic) pairs, so that the
softmax over all pairs is the product of the two softmaxes: learning, measuring and compressing a pair is
learning, measuring and compressing both, and a row counts as right when both are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec, Quality
from trainer.data import Indices, Rows, Split, classes_of, column, read_table, required, split, words
from trainer.recipes import text
from trainer.tasks import Answers, Array, Classification, Scores, Transform, numbers_of, texts

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "learn", "read", "signature"]

GRAPH_INPUT = text.GRAPH_INPUT
fit, signature, encode, batch = text.fit, text.signature, text.encode, text.batch


def read(folder: Path, data: DataSpec) -> Rows:
    table, places = read_table(folder, data)
    found = {
        role: required(column(table, name, role, data), places, name or "")
        for role, name in (("text", data.text), ("label", data.label), ("topic", data.topic))
    }
    return Rows(
        inputs={"text": words(found["text"])},
        labels=words(found["label"]),
        extra={"topic": words(found["topic"])},
    )


def learn(rows: Rows, train: Indices) -> dict[str, Any]:
    return {
        **text.fit({"text": rows.inputs["text"][train]}),
        "first": list(classes_of(rows.labels)),
        "second": list(classes_of(rows.extra["topic"])),
    }


class TwoHeads(Classification):
    """Pairs are numbered first by sentiment, then by topic."""

    quality = Quality.BOTH
    guess_name = "commonest pair"

    def split(self, rows: Rows, *, holdout: float, seed: int) -> Split:
        """The same share of every pair is held out."""
        classes_of(rows.labels)
        pairs = texts(f"{a}\x1f{b}" for a, b in zip(rows.labels, rows.extra["topic"], strict=True))
        return split(numbers_of(pairs, sorted(set(pairs))), holdout=holdout, seed=seed)

    def classes(self, rows: Rows, transform: Transform) -> tuple[str, ...]:
        return tuple(f"{first} · {second}" for first in transform["first"] for second in transform["second"])

    def targets(self, rows: Rows, classes: Sequence[str], transform: Transform) -> Array:
        first = numbers_of(rows.labels, transform["first"])
        return first * len(transform["second"]) + numbers_of(rows.extra["topic"], transform["second"])

    def scores(self, answers: Answers, targets: Array, encoded: Array, transform: Transform) -> Scores:
        right = [head.argmax(axis=1) for head in heads(answers, transform)]
        wanted = np.divmod(targets, len(transform["second"]))
        return ((right[0] == wanted[0]) & (right[1] == wanted[1])).astype(np.float64)

    def figures(
        self, answers: Answers, targets: Array, encoded: Array, transform: Transform
    ) -> dict[str, float]:
        first, second = (head.argmax(axis=1) for head in heads(answers, transform))
        wanted = np.divmod(targets, len(transform["second"]))
        return {
            "sentiment right": float((first == wanted[0]).mean()),
            "topic right": float((second == wanted[1]).mean()),
        }

    def outputs(self, classes: Sequence[str], transform: Transform) -> list[dict[str, Any]]:
        described = [{"name": self.output, "datatype": "FP32", "shape": [-1, len(classes)]}]
        for name in ("label", "topic"):
            described.append({"name": name, "datatype": "BYTES", "shape": [-1]})
            described.append({"name": f"{name}_score", "datatype": "FP32", "shape": [-1]})
        return described

    def serve(
        self, name: str, answers: Answers, encoded: Array, classes: Sequence[str], transform: Transform
    ) -> Array:
        if name == self.output:
            return answers
        which = 1 if name.startswith("topic") else 0
        shares = heads(answers, transform)[which]
        if name.endswith("_score"):
            return shares.max(axis=1).astype(np.float32)
        names = transform["second" if which else "first"]
        return texts(names[index] for index in shares.argmax(axis=1))


def heads(answers: Answers, transform: Transform) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The probabilities of each head, out of those of the pairs."""
    pairs_BFS = answers.reshape(len(answers), len(transform["first"]), len(transform["second"]))
    return pairs_BFS.sum(axis=2), pairs_BFS.sum(axis=1)


TASK = TwoHeads()
