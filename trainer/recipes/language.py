"""A small causal language model, character by character: a text in, how it goes on out. Any script, no tokenizer.

The graph answers one thing: given up to 64 characters, how likely each character of the vocabulary comes next.
Writing is asking it again and again, see `go_on`: append what was chosen, forget the oldest beyond the context.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec, Learns, Quality
from trainer.data import Columns, Indices, Rows, Split, column, read_table, required, words
from trainer.failures import BadData
from trainer.recipes.ngrams import NGrams
from trainer.recipes.text import batch
from trainer.tasks import Answers, Array, Classification, Guess, Scores, Transform, texts

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "go_on", "learn", "read", "signature"]

GRAPH_INPUT = "ids"
CONTEXT = 64  # characters the network sees at once
MAX_CHARACTERS = 6000  # of the vocabulary; enough for Chinese
SPECIAL = ("⟨padding⟩", "⟨start⟩", "⟨unknown⟩")
START, UNKNOWN = 1, 2
LENGTH = 80  # characters that are written when nobody says how many
TEMPERATURE, TOP_K = 0.7, 30
SHOWN = 5  # of the next characters, the likeliest first


def read(folder: Path, data: DataSpec) -> Rows:
    """Documents cut into windows: 64 characters and the one that comes next."""
    table, places = read_table(folder, data)
    documents = required(column(table, data.text, "text", data), places, data.text or "")
    windows, following, owner, weight = [], [], [], 0
    for number, document in enumerate(documents):
        weight += len(document)
        for start in range(0, max(1, len(document) - 1), CONTEXT):
            window = document[start : start + CONTEXT + 1]
            if len(window) >= 2:
                windows.append(window[:-1])
                following.append(window[-1])
                owner.append(number)
    if len(windows) < 20:
        raise BadData(f"{weight} characters of text are too few for a language model: add texts.")
    return Rows(
        inputs={"text": words(windows)},
        labels=words(following),
        extra={"document": np.asarray(owner, dtype=np.int64)},
    )


def fit(inputs: Columns) -> dict[str, Any]:
    """The characters seen twice or more; a rarer one teaches nothing and is unknown."""
    counts = Counter("".join(map(str, inputs["text"])))
    known = [sign for sign, count in counts.most_common(MAX_CHARACTERS) if count >= 2]
    return {"characters": "".join(sorted(known)), "context": CONTEXT}


def learn(rows: Rows, train: Indices) -> dict[str, Any]:
    return fit({"text": rows.inputs["text"][train]})


def signature(transform: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]


def encode(transform: Mapping[str, Any], inputs: Columns) -> Array:
    """A start sign and the last characters of the text; 0 is the padding, on the right."""
    place = {sign: number for number, sign in enumerate(transform["characters"], start=len(SPECIAL))}
    encoded = np.empty(len(inputs["text"]), dtype=object)
    for row, value in enumerate(inputs["text"]):
        ids = [place.get(sign, UNKNOWN) for sign in str(value)[-int(transform["context"]) :]]
        encoded[row] = np.asarray([START, *ids], dtype=np.int64)
    return encoded


def go_on(
    transform: Mapping[str, Any],
    classes: Sequence[str],
    encoded: Array,
    run: Callable[[Array], Answers],
    *,
    length: int = LENGTH,
    temperature: float = TEMPERATURE,
    top_k: int = TOP_K,
    seed: int | None = None,
) -> npt.NDArray[np.object_]:
    """Write `length` characters after each row; `run` gives the shares of the next character.

    Temperature 0 takes the likeliest each time. Without a seed the same text goes on in the same way.
    """
    ids = [row.tolist() for row in encoded]
    dice = [np.random.default_rng(zlib.crc32(str(row).encode()) if seed is None else seed) for row in ids]
    written: list[list[str]] = [[] for _ in ids]
    context = int(transform["context"])
    for _ in range(length):
        rows = np.empty(len(ids), dtype=object)
        rows[:] = [np.asarray([START, *row[1:][-context:]], dtype=np.int64) for row in ids]
        for number, shares in enumerate(run(rows)):
            chosen = choose(shares, dice[number], temperature=temperature, top_k=top_k)
            ids[number].append(chosen)
            written[number].append(classes[chosen])
    return texts("".join(one) for one in written)


def choose(shares: Any, dice: np.random.Generator, *, temperature: float, top_k: int) -> int:
    """The number of the next character; never padding, start or unknown."""
    weights = np.asarray(shares, dtype=np.float64).copy()
    weights[: len(SPECIAL)] = 0.0
    if temperature <= 0:
        return int(weights.argmax())
    best = np.argsort(-weights, kind="stable")[: max(1, top_k)]
    sharpened = np.maximum(weights[best], 1e-12) ** (1.0 / temperature)
    return int(dice.choice(best, p=sharpened / sharpened.sum()))


class NextCharacter(Classification):
    """A score is the share of the bits of the next character that the model saves; 0 knows nothing."""

    learns = Learns.TEXT
    quality = Quality.SAVED
    guess_name = "counts of three characters"

    def split(self, rows: Rows, *, holdout: float, seed: int) -> Split:
        """Whole documents are held out; of few documents the end of each."""
        owner = rows.extra["document"].astype(np.int64)
        names = np.unique(owner)
        if len(names) >= 20:
            count = max(1, round(len(names) * holdout))
            chosen = np.random.default_rng([seed, 0x5117]).permutation(names)[:count]
            held = np.flatnonzero(np.isin(owner, chosen))
        else:
            ends = [np.flatnonzero(owner == name) for name in names]
            held = np.concatenate([rows[len(rows) - round(len(rows) * holdout) :] for rows in ends])
        if not len(held):
            raise BadData("The texts are too short to hold any of them out: add texts.")
        held = np.sort(held).astype(np.int64)
        return Split(train=np.setdiff1d(np.arange(len(rows), dtype=np.int64), held), holdout=held)

    def classes(self, rows: Rows, transform: Transform) -> tuple[str, ...]:
        return (*SPECIAL, *transform["characters"])

    def targets(self, rows: Rows, classes: Sequence[str], transform: Transform) -> Array:
        place = {sign: number for number, sign in enumerate(classes)}
        return np.asarray([place.get(str(sign), UNKNOWN) for sign in rows.labels], dtype=np.int64)

    def scores(self, answers: Answers, targets: Array, encoded: Array, transform: Transform) -> Scores:
        return 1.0 - _nats(answers, targets) / math.log(answers.shape[1])

    def guess(self, targets: Array, classes: int, encoded: Array, transform: Transform) -> Guess:
        return NGrams(encoded, targets, classes).answers

    def figures(
        self, answers: Answers, targets: Array, encoded: Array, transform: Transform
    ) -> dict[str, float]:
        nats = float(_nats(answers, targets).mean())
        right = float((answers.argmax(axis=1) == targets).mean())
        return {"perplexity": math.exp(nats), "bits a character": nats / math.log(2), "next right": right}

    def outputs(self, classes: Sequence[str], transform: Transform) -> list[dict[str, Any]]:
        return [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "next", "datatype": "BYTES", "shape": [-1, SHOWN]},
            {"name": "next_scores", "datatype": "FP32", "shape": [-1, SHOWN]},
        ]

    def serve(
        self, name: str, answers: Answers, encoded: Array, classes: Sequence[str], transform: Transform
    ) -> Array:
        order = np.argsort(-answers, axis=1, kind="stable")[:, :SHOWN]
        if name == "next_scores":
            return np.take_along_axis(answers, order, axis=1)
        return texts(classes[int(index)] for index in order.ravel()).reshape(order.shape)


def _nats(answers: Answers, targets: Array) -> Scores:
    shares = answers[np.arange(len(targets)), targets].astype(np.float64)
    nats: Scores = -np.log(np.maximum(shares, 1e-9))
    return nats


TASK = NextCharacter()
