"""Support questions find their intent and a ready answer; sentences find their sentiment and their topic."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from tests.trainer.helpers import HOME, engine, manifest, write_run
from trainer.bundle import Bundle, open_bundle
from trainer.contract import NEEDS, CompressionSpec, DataSpec, Method, Recipe
from trainer.data import read_table, words
from trainer.recipes import intents, sentiment

TABLE = "data/table.jsonl"
INTENTS = DataSpec(path=TABLE, format="jsonl", text="text", label="intent", answer="answer")
FINANCE = DataSpec(path=TABLE, format="jsonl", text="text", label="sentiment", topic="topic")


def sample_run(folder: Path, sample: str, recipe: Recipe, data: DataSpec) -> Path:
    """A run on one of the sets of docs/samples with the recipe's usual settings and every method for texts."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(HOME / "docs" / "samples" / sample, folder / data.path)
    methods = (Method.INT8, Method.LOWRANK, Method.VOCABULARY)
    compression = CompressionSpec(methods=methods, max_accuracy_drop=0.05)
    spec = write_run(folder, recipe, data, compression=compression, **NEEDS[recipe].usual)
    done = engine(spec)
    assert done.returncode == 0, done.stderr[-3000:]
    return spec


def straight(spec: Path, data: DataSpec, *labels: str) -> float:
    """What logistic regression over character n-grams gets right, by cross-validation over all rows."""
    table, _ = read_table(spec.parent, data)
    wanted = [
        " ".join(str(part) for part in row) for row in zip(*(table[name] for name in labels), strict=True)
    ]
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform(table["text"])
    model = LogisticRegression(C=10, max_iter=400)
    return float(cross_val_score(model, grams, wanted, cv=3).mean())


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intents")
    return sample_run(folder, "intents-v1.jsonl", Recipe.INTENT, INTENTS)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finance")
    return sample_run(folder, "finance-v1.jsonl", Recipe.SENTIMENT, FINANCE)


def ask(bundle: Bundle, *asked: str) -> dict[str, np.ndarray]:
    encoded = bundle.encode({"text": words(list(asked))})
    answers = bundle.probabilities(encoded)
    return {item["name"]: bundle.serve(item["name"], answers, encoded) for item in bundle.outputs}


def test_intents_are_found_as_well_as_by_logistic_regression(questions: Path) -> None:
    found = manifest(questions)
    original = next(one for one in found.variants if one.name == "original")
    assert found.baseline is not None
    assert found.baseline.value < 0.2
    assert found.beats_baseline
    assert original.accuracy >= 0.8
    assert original.accuracy >= straight(questions, INTENTS, "intent") - 0.08
    assert original.figures["best answer right"] > 0.75
    assert original.figures["answer among 3"] >= original.figures["best answer right"]


def test_a_question_gets_its_intent_and_the_best_answers_with_scores(questions: Path) -> None:
    bundle = open_bundle(questions.parent / "result" / "original")
    said = ask(bundle, "Where has my parcel got to?", "我忘了密码怎么办")
    assert list(said["label"]) == ["track_order", "reset_password"]
    assert said["answers"].shape == said["answer_scores"].shape == (2, intents.BEST)
    assert said["answers"][0, 0].startswith("You can see where your parcel is")
    assert "忘记密码" in said["answers"][1, 0]
    assert (np.diff(said["answer_scores"], axis=1) <= 0).all()
    assert (said["intent_score"] >= said["answer_scores"][:, 0] - 1e-6).all()
    for item in bundle.outputs:
        assert list(said[item["name"]].shape[1:]) == item["shape"][1:]


def test_both_heads_are_right_far_more_often_than_a_guess(sentences: Path) -> None:
    found = manifest(sentences)
    original = next(one for one in found.variants if one.name == "original")
    assert found.quality == "both right"
    assert found.baseline is not None
    assert found.baseline.value < 0.2
    assert original.accuracy >= 0.9
    assert original.accuracy >= straight(sentences, FINANCE, "sentiment", "topic") - 0.08
    assert original.figures["topic right"] >= original.accuracy
    assert original.figures["sentiment right"] >= original.accuracy


def test_a_sentence_gets_sentiment_and_topic_each_with_its_own_score(sentences: Path) -> None:
    bundle = open_bundle(sentences.parent / "result" / "original")
    said = ask(bundle, "The takeover was blocked by regulators", "房贷利率维持不变")
    assert list(said["label"]) == ["negative", "neutral"]
    assert list(said["topic"]) == ["deals", "rates"]
    assert (said["label_score"] > 0.5).all()
    assert (said["topic_score"] > 0.5).all()


@pytest.mark.parametrize("recipe", ["questions", "sentences"])
def test_compressed_variants_of_both_are_made_and_judged(recipe: str, request: pytest.FixtureRequest) -> None:
    found = manifest(request.getfixturevalue(recipe))
    names = {one.name for one in found.variants}
    assert "int8" in names
    assert found.chosen != "original"
    smallest = min(found.variants, key=lambda one: one.compressed_size_bytes)
    assert smallest.size_bytes * 3 < next(one for one in found.variants if one.name == "original").size_bytes


def test_the_pairs_of_two_heads_are_the_product_of_both() -> None:
    transform = {"first": ["bad", "good"], "second": ["deals", "rates", "sales"]}
    mood, topic = np.array([[0.3, 0.7]]), np.array([[0.2, 0.5, 0.3]])
    pairs = (mood[:, :, None] * topic[:, None, :]).reshape(1, 6).astype(np.float32)
    first, second = sentiment.heads(pairs, transform)
    assert np.allclose(first, mood)
    assert np.allclose(second, topic)
    assert sentiment.TASK.scores(pairs, np.array([1 * 3 + 1]), pairs, transform).tolist() == [1.0]
    assert sentiment.TASK.scores(pairs, np.array([0 * 3 + 1]), pairs, transform).tolist() == [0.0]
