"""Recommendation: who chose what, in; a ranked list of items for a user, out.

Two towers. A user is an id and the items liked before; an item is an id and the words of its text, so that an
item nobody has chosen yet has a place too. Each user's newest choices are held out, and what a user has had
already is never offered, in measuring as in serving.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec, Learns, Quality
from trainer.data import Columns, Indices, Rows, Split, column, is_missing, read_table, required, words
from trainer.failures import BadData
from trainer.recipes.text import batch, folded_words
from trainer.tasks import Answers, Array, Classification, Guess, Scores, Transform, numbers_of, texts

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "encode_training", "fit", "learn", "read", "signature"]

GRAPH_INPUT = "ids"
BEST = 10  # items that are served, the best first
MAX_HISTORY = 100  # the newest likes of a user that are looked at
WORD_BUCKETS = 4096
MAX_WORDS = 16  # of an item's text
HELD_AT_MOST = 10  # choices a user: more could not all be among ten


def read(folder: Path, data: DataSpec) -> Rows:
    """One row a liked choice. With ratings, those below the mean of all ratings are left out: disliked."""
    table, places = read_table(folder, data)
    users = required(column(table, data.user, "user", data), places, data.user or "")
    items = required(column(table, data.item, "item", data), places, data.item or "")
    rows = np.arange(len(users))
    if data.rating:
        ratings = _numbers(table, data.rating, "rating", data, places)
        rows = rows[ratings >= ratings.mean()]
    when = (
        _numbers(table, data.time, "time", data, places) if data.time else np.arange(len(users), dtype=float)
    )
    said = column(table, data.text, "text", data) if data.text else [""] * len(users)
    liked = words([users[row].strip() for row in rows])
    return Rows(
        inputs={"user": liked, "liked": words([""] * len(rows))},
        labels=words([items[row].strip() for row in rows]),
        extra={"time": when[rows], "text": words([said[row] or "" for row in rows])},
    )


def fit(inputs: Columns) -> dict[str, Any]:
    raise NotImplementedError("a recommendation is learned from choices, not from inputs alone: see learn")


def learn(rows: Rows, train: Indices) -> dict[str, Any]:
    """Users, items with the words of their texts, and what each user liked in training, oldest first."""
    items = sorted(set(map(str, rows.labels)))
    place = {item: index for index, item in enumerate(items)}
    said: dict[str, str] = {}
    for item, text in zip(rows.labels, rows.extra["text"], strict=True):
        said.setdefault(str(item), str(text))
    users: dict[str, list[int]] = {}
    for row in train[np.argsort(rows.extra["time"][train], kind="stable")]:
        users.setdefault(str(rows.inputs["user"][row]), []).append(place[str(rows.labels[row])])
    names = sorted(users)
    return {
        "items": items,
        "words": [_word_ids(said[item]) for item in items],
        "users": names,
        "liked": [users[name] for name in names],
        "buckets": WORD_BUCKETS,
    }


def signature(transform: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`liked`: ids of items with spaces between, for users the model does not know; empty for the others."""
    return [
        {"name": "user", "datatype": "BYTES", "shape": [-1]},
        {"name": "liked", "datatype": "BYTES", "shape": [-1]},
    ]


def encode(transform: Mapping[str, Any], inputs: Columns) -> Array:
    """Items count from 1, users go on from there; 0 is the padding."""
    place = {item: index + 1 for index, item in enumerate(transform["items"])}
    first_user = len(place) + 1
    known = {name: number for number, name in enumerate(transform["users"])}
    encoded = np.empty(len(inputs["user"]), dtype=object)
    for row, (user, liked) in enumerate(zip(inputs["user"], inputs["liked"], strict=True)):
        number = known.get(str(user).strip())
        ids = [] if number is None else [index + 1 for index in transform["liked"][number]]
        ids += [place[item] for item in str(liked or "").replace(",", " ").split() if item in place]
        whole = list(dict.fromkeys(ids))[-MAX_HISTORY:]
        if number is not None:
            whole.append(first_user + number)
        encoded[row] = np.asarray(whole or [0], dtype=np.int64)
    return encoded


def encode_training(transform: Mapping[str, Any], rows: Rows, targets: Array) -> Array:
    """The same without the row's own choice: the answer would be in the question."""
    encoded = encode(transform, rows.inputs)
    for row, target in enumerate(targets):
        ids = encoded[row]
        kept = ids[ids != target + 1]
        encoded[row] = kept if len(kept) else np.zeros(1, dtype=np.int64)
    return encoded


class Ranking(Classification):
    """The graph gives every item its share; right is a held-out choice that is among the ten best."""

    learns = Learns.RANKING
    quality = Quality.RECALL
    output = "shares"
    guess_name = "most popular items"

    def split(self, rows: Rows, *, holdout: float, seed: int) -> Split:
        by_user: dict[str, list[int]] = {}
        for row in np.argsort(rows.extra["time"], kind="stable"):
            by_user.setdefault(str(rows.inputs["user"][row]), []).append(int(row))
        held: list[int] = []
        for choices in by_user.values():
            if len(choices) >= 3:
                count = min(max(1, round(len(choices) * holdout)), HELD_AT_MOST)
                held += choices[-count:]
        if len(held) < 5:
            raise BadData("Too few users chose three items or more: nothing is left to test on. Add rows.")
        holdout_rows = np.sort(np.asarray(held, dtype=np.int64))
        return Split(
            train=np.setdiff1d(np.arange(len(rows), dtype=np.int64), holdout_rows), holdout=holdout_rows
        )

    def classes(self, rows: Rows, transform: Transform) -> tuple[str, ...]:
        if len(transform["items"]) < 2 * BEST:
            raise BadData(f"There are {len(transform['items'])} items; a list of {BEST} needs twice as many.")
        return tuple(transform["items"])

    def targets(self, rows: Rows, classes: Sequence[str], transform: Transform) -> Array:
        return numbers_of(rows.labels, classes)

    def guess(self, targets: Array, classes: int, encoded: Array, transform: Transform) -> Guess:
        popular: Answers = np.bincount(targets, minlength=classes).astype(np.float32)
        return popular / max(1.0, float(popular.sum()))

    def scores(self, answers: Answers, targets: Array, encoded: Array, transform: Transform) -> Scores:
        return (self.ranks(answers, targets, encoded) < BEST).astype(np.float64)

    def figures(
        self, answers: Answers, targets: Array, encoded: Array, transform: Transform
    ) -> dict[str, float]:
        ranks = self.ranks(answers, targets, encoded)
        gain = np.where(ranks < BEST, 1.0 / np.log2(ranks + 2.0), 0.0)
        offered = {item for row in best(answers[:2000], encoded[:2000]) for item in row.tolist()}
        return {f"NDCG@{BEST}": float(gain.mean()), "items offered": len(offered) / answers.shape[1]}

    def ranks(self, answers: Answers, targets: Array, encoded: Array) -> npt.NDArray[np.int64]:
        """At which place, from 0, each held-out choice stands among the items its user has not had."""
        ranks = np.empty(len(targets), dtype=np.int64)
        for row, target in enumerate(targets):
            line = answers[row].copy()
            line[_had(encoded[row], answers.shape[1])] = -math.inf
            # equal shares: those before it by number come first, as in serving
            ranks[row] = (line > line[target]).sum() + (line[:target] == line[target]).sum()
        return ranks

    def outputs(self, classes: Sequence[str], transform: Transform) -> list[dict[str, Any]]:
        return [
            {"name": "items", "datatype": "BYTES", "shape": [-1, BEST]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, BEST]},
        ]

    def serve(
        self, name: str, answers: Answers, encoded: Array, classes: Sequence[str], transform: Transform
    ) -> Array:
        order = best(answers, encoded)
        if name == "scores":
            return np.take_along_axis(answers, order, axis=1)
        return texts(classes[int(index)] for index in order.ravel()).reshape(order.shape)


def best(answers: Answers, encoded: Array) -> npt.NDArray[np.int64]:
    """The best items of each row that its user has not had, the best first."""
    open_to = answers.copy()
    for row, ids in enumerate(encoded):
        open_to[row, _had(ids, answers.shape[1])] = -1.0
    order: npt.NDArray[np.int64] = np.argsort(-open_to, axis=1, kind="stable")[:, :BEST]
    return order


def _had(ids: npt.NDArray[np.int64], items: int) -> npt.NDArray[np.int64]:
    return ids[(ids > 0) & (ids <= items)] - 1


def _word_ids(text: str) -> list[int]:
    return [1 + zlib.crc32(word.encode()) % WORD_BUCKETS for word in folded_words(text)[:MAX_WORDS]]


def _numbers(
    table: Mapping[str, list[str | None]], name: str, role: str, data: DataSpec, places: list[str]
) -> npt.NDArray[np.float64]:
    values = np.empty(len(places), dtype=np.float64)
    for row, value in enumerate(column(table, name, role, data)):
        try:
            values[row] = math.nan if is_missing(value) else float(str(value))
        except ValueError:
            values[row] = math.nan
        if not math.isfinite(values[row]):
            raise BadData(f"{places[row]}: the {role} {name!r} is {value!r}, which is no number.")
    return values


TASK = Ranking()
