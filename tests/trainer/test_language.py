"""A language model from real text: better than counting, whole documents held out, writing by a stated contract."""

from __future__ import annotations

import json
import math
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch

from tests.trainer.helpers import Worker, engine, manifest, write_run
from trainer.bundle import open_bundle
from trainer.contract import NEEDS, CompressionSpec, DataSpec, Method, Recipe
from trainer.data import Rows, words
from trainer.failures import BadData
from trainer.recipes import language
from trainer.recipes.language import CONTEXT, LENGTH, SPECIAL, TASK, choose, go_on
from trainer.recipes.ngrams import NGrams
from trainer.recipes.writer import Writer

TEXTS = DataSpec(path="data/table.jsonl", format="jsonl", text="text")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first part of Python's own language reference, which every Python carries (PSF licence)."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "data").mkdir()
    chosen = [text for _, text in sorted(topics.items()) if len(text) > 200][:34]
    lines = (json.dumps({"text": text}) for text in chosen)
    (folder / TEXTS.path).write_text("\n".join(lines))
    compression = CompressionSpec(methods=(Method.INT8,), max_accuracy_drop=0.01)
    spec = write_run(folder, Recipe.LANGUAGE, TEXTS, compression=compression, **NEEDS[Recipe.LANGUAGE].usual)
    done = engine(spec, timeout_s=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return spec


def test_it_is_less_surprised_by_new_documents_than_counts_are(reference: Path) -> None:
    found = manifest(reference)
    original = next(one for one in found.variants if one.name == "original")
    assert found.quality == "code length saved"
    assert found.baseline is not None
    assert found.baseline.name == "counts of three characters"
    assert found.beats_baseline
    assert original.accuracy > found.baseline.value + 0.02
    assert 1 < original.figures["perplexity"] < 7
    bits = math.log2(original.figures["perplexity"])
    assert original.figures["bits a character"] == pytest.approx(bits, rel=1e-6)


def test_eight_bits_say_nearly_the_same(reference: Path) -> None:
    int8 = next(one for one in manifest(reference).variants if one.name == "int8")
    assert int8.passed_gate
    assert manifest(reference).chosen == "int8"


def test_a_worker_goes_on_with_a_text_and_says_what_is_likely_next(reference: Path, tmp_path: Path) -> None:
    worker = Worker(reference.parent / "result" / "int8", tmp_path)
    try:
        client = worker.client()
        prompt = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["The function retur"]}
        status, _, body = client.ask({"inputs": [prompt]})
        assert status == 200
        told = {one["name"]: one for one in body["outputs"]}
        assert len(told["text"]["data"][0]) == LENGTH
        assert told["next"]["data"][0] == "n"
        assert told["next"]["shape"] == [1, language.SHOWN]
        again = client.ask({"inputs": [prompt], "outputs": [{"name": "text"}]})[2]
        assert again["outputs"][0]["data"] == told["text"]["data"]
        client.close()
    finally:
        worker.stop()


def test_writing_can_be_told_how_long_how_bold_and_by_which_dice(reference: Path) -> None:
    bundle = open_bundle(reference.parent / "result" / "original")
    encoded = bundle.encode({"text": words(["If the "])})

    def write(**how: float | int) -> str:
        return str(go_on(bundle.transform, bundle.classes, encoded, bundle.probabilities, **how)[0])  # type: ignore[arg-type]

    assert len(write(length=12)) == 12
    assert write(length=30, temperature=0) == write(length=30, temperature=0, seed=5)
    assert write(length=40, seed=1) == write(length=40, seed=1)
    assert write(length=40, seed=1, temperature=1.5) != write(length=40, seed=2, temperature=1.5)


def test_padding_start_and_unknown_are_never_written() -> None:
    shares = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    dice = np.random.default_rng(1)
    assert {choose(shares, dice, temperature=1.0, top_k=5) for _ in range(50)} == {3, 4}
    assert choose(shares, dice, temperature=0, top_k=5) == len(SPECIAL)


def test_whole_documents_are_held_out() -> None:
    owner = np.repeat(np.arange(30), 4)
    rows = Rows(inputs={"text": words(["x"] * 120)}, labels=words(["y"] * 120), extra={"document": owner})
    parts = TASK.split(rows, holdout=0.1, seed=3)
    assert len(set(owner[parts.holdout])) == 3
    assert not set(owner[parts.holdout]) & set(owner[parts.train])


def test_every_character_of_a_window_teaches_and_the_last_place_is_what_is_shipped() -> None:
    torch.manual_seed(1)
    network = Writer({"context": 8}, 12)
    x = torch.tensor([[1, 4, 5, 6], [1, 7, 0, 0]])
    y = torch.tensor([9, 8])
    whole = network.train()(x)
    assert whole.shape == (2, 4, 12)
    shipped = network.eval()(x)
    assert torch.allclose(shipped[0], whole[0, 3], atol=1e-5)
    assert torch.allclose(shipped[1], whole[1, 1], atol=1e-5)  # padding on the right is not looked at
    taught = torch.log_softmax(whole[0], dim=1)
    by_hand = -(taught[0, 4] + taught[1, 5] + taught[2, 6] + taught[3, 9]) / 4
    assert torch.allclose(network.loss(whole[:1], x[:1], y[:1]), by_hand, atol=1e-5)


def test_a_character_does_not_see_what_comes_after_it() -> None:
    network = Writer({"context": 8}, 12).train()
    one, other = torch.tensor([[1, 4, 5, 6, 7]]), torch.tensor([[1, 4, 5, 9, 3]])
    assert torch.allclose(network(one)[:, :3], network(other)[:, :3], atol=1e-6)
    assert not torch.allclose(network(one)[:, 3], network(other)[:, 3], atol=1e-3)


def test_counts_give_whole_shares_and_back_off_where_nothing_was_seen() -> None:
    rows = np.empty(2, dtype=object)
    rows[:] = [np.array([1, 3, 4, 3, 4]), np.array([1, 3, 4])]
    counts = NGrams(rows, np.array([3, 3]), 6)
    seen, unseen = counts.line([3, 4]), counts.line([5, 5])
    assert seen.sum() == pytest.approx(1.0)
    assert unseen.sum() == pytest.approx(1.0)
    assert seen.argmax() == 3
    assert (unseen > 0).all()


def test_chinese_is_written_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    line = json.dumps({"text": "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？" * 4}, ensure_ascii=False)
    (tmp_path / TEXTS.path).write_text("\n".join([line] * 20))
    rows = language.read(tmp_path, TEXTS)
    transform = language.learn(rows, np.arange(len(rows)))
    assert "学" in transform["characters"]
    (encoded,) = language.encode(transform, {"text": words(["不亦"])})
    assert len(encoded) == 3
    long = language.encode(transform, {"text": words(["乐" * 500])})
    assert len(long[0]) == CONTEXT + 1


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / TEXTS.path).write_text('{"text": "short"}\n{"text": "very short"}\n')
    with pytest.raises(BadData, match="15 characters of text are too few"):
        language.read(tmp_path, TEXTS)
