"""Support questions: which intent it is, and the best ready answer, with scores, from a catalogue of answers.

The network scores every answer of the catalogue; an intent is worth what its answers are worth together. So one
graph both tells the intent and retrieves the answer, and several answers of one intent (one a language, say)
are told apart by the question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec
from trainer.data import Indices, Rows, classes_of, column, read_table, required, split, words
from trainer.recipes import text
from trainer.tasks import Answers, Array, Classification, Scores, Transform, numbers_of, texts

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "learn", "read", "signature"]

GRAPH_INPUT = text.GRAPH_INPUT
fit, signature, encode, batch = text.fit, text.signature, text.encode, text.batch
BEST = 3  # answers that are served, the best first


def read(folder: Path, data: DataSpec) -> Rows:
    table, places = read_table(folder, data)
    found = {
        role: required(column(table, name, role, data), places, name or "")
        for role, name in (("text", data.text), ("label", data.label), ("answer", data.answer))
    }
    return Rows(
        inputs={"text": words(found["text"])},
        labels=words(found["label"]),
        extra={"answer": words(found["answer"])},
    )


def learn(rows: Rows, train: Indices) -> dict[str, Any]:
    """The n-grams of the training questions, and the catalogue: it is given, not learned, so all of it."""
    intents = classes_of(rows.labels)
    catalogue = dict.fromkeys(zip(map(str, rows.labels), map(str, rows.extra["answer"]), strict=True))
    ordered = sorted(catalogue, key=lambda pair: (intents.index(pair[0]), pair[1]))
    return {
        **text.fit({"text": rows.inputs["text"][train]}),
        "intents": list(intents),
        "answers": [answer for _, answer in ordered],
        "intent_of": [intents.index(intent) for intent, _ in ordered],
    }


class Retrieval(Classification):
    """Right is a question whose intent is found; which of its answers was meant is told as a figure."""

    def split(self, rows: Rows, *, holdout: float, seed: int) -> Any:
        """The same share of every intent and answer is held out."""
        pairs = texts(f"{a}\x1f{b}" for a, b in zip(rows.labels, rows.extra["answer"], strict=True))
        classes_of(rows.labels)  # it says so when there is only one
        names = sorted(set(pairs))
        return split(numbers_of(pairs, names), holdout=holdout, seed=seed)

    def classes(self, rows: Rows, transform: Transform) -> tuple[str, ...]:
        return tuple(transform["answers"])

    def targets(self, rows: Rows, classes: Sequence[str], transform: Transform) -> Array:
        place = {
            (transform["intents"][intent], answer): number
            for number, (intent, answer) in enumerate(
                zip(transform["intent_of"], transform["answers"], strict=True)
            )
        }
        pairs = zip(map(str, rows.labels), map(str, rows.extra["answer"]), strict=True)
        return np.asarray([place[pair] for pair in pairs], dtype=np.int64)

    def scores(self, answers: Answers, targets: Array, encoded: Array, transform: Transform) -> Scores:
        wanted = np.asarray(transform["intent_of"])[targets]
        return (_by_intent(answers, transform).argmax(axis=1) == wanted).astype(np.float64)

    def figures(
        self, answers: Answers, targets: Array, encoded: Array, transform: Transform
    ) -> dict[str, float]:
        order = np.argsort(-answers, axis=1)[:, :BEST]
        hits = order == targets[:, None]
        return {
            "best answer right": float(hits[:, 0].mean()),
            f"answer among {BEST}": float(hits.any(axis=1).mean()),
        }

    def outputs(self, classes: Sequence[str], transform: Transform) -> list[dict[str, Any]]:
        best = min(BEST, len(classes))
        return [
            {"name": self.output, "datatype": "FP32", "shape": [-1, len(classes)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "intent_score", "datatype": "FP32", "shape": [-1]},
            {"name": "answers", "datatype": "BYTES", "shape": [-1, best]},
            {"name": "answer_scores", "datatype": "FP32", "shape": [-1, best]},
        ]

    def serve(
        self, name: str, answers: Answers, encoded: Array, classes: Sequence[str], transform: Transform
    ) -> Array:
        if name == self.output:
            return answers
        if name in ("label", "intent_score"):
            shares = _by_intent(answers, transform)
            if name == "intent_score":
                return shares.max(axis=1).astype(np.float32)
            return texts(transform["intents"][index] for index in shares.argmax(axis=1))
        order = np.argsort(-answers, axis=1, kind="stable")[:, : min(BEST, len(classes))]
        if name == "answer_scores":
            return np.take_along_axis(answers, order, axis=1)
        return texts(classes[int(index)] for index in order.ravel()).reshape(order.shape)


def _by_intent(answers: Answers, transform: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """What the answers of each intent are worth together."""
    belongs = np.zeros((len(transform["intent_of"]), len(transform["intents"])), dtype=np.float32)
    belongs[np.arange(len(belongs)), transform["intent_of"]] = 1.0
    return answers @ belongs


TASK = Retrieval()
