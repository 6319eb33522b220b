"""Histograms of inputs: what a profile tells of training rows, and that serving counts into the same bins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.helpers import Worker, manifest, wait_for
from trainer import gauges
from trainer.contract import Recipe
from trainer.data import words
from trainer.gauges import KINDS, NAME_SEEN, SCRIPTS, Tally, kinds_of, profile, scripts_of
from trainer.watch import MOST_INPUT_ROWS, Watch


def table(rows: int = 1000, *, shift: float = 0.0, seed: int = 1) -> dict:
    dice = np.random.default_rng(seed)
    age = (dice.normal(40 + shift, 10, rows)).astype(np.float32)
    age[::50] = np.nan
    return {
        "age": age,
        "yes": dice.integers(0, 2, rows).astype(np.float32),
        "job": words(list(dice.choice(["cook", "clerk", ""], rows, p=[0.7, 0.2, 0.1]))),
    }


def test_numbers_fall_into_bins_of_equal_share_with_the_missing_ones_apart() -> None:
    told = profile(Recipe.TABULAR, table())
    age, yes, job = told["gauges"]
    assert told["rows"] == 1000
    assert len(age["edges"]) == 9 and len(age["counts"]) == 11
    assert age["counts"][-1] == 20 and all(90 <= count <= 105 for count in age["counts"][:-1])
    assert yes["edges"] == [0.5] and sum(yes["counts"]) == 1000 and yes["counts"][-1] == 0
    assert job["names"] == ["cook", "clerk"]
    assert job["counts"][-2] == 0 and 60 < job["counts"][-1] < 140
    assert json.loads(json.dumps(told)) == told


def test_a_constant_column_tells_what_is_below_and_above() -> None:
    told = profile(Recipe.TABULAR, {"one": np.full(50, 7.0, dtype=np.float32)})
    tally = Tally(told["gauges"])
    tally.add({"one": np.asarray([6, 7, 7, 8, np.nan], dtype=np.float32)})
    assert tally.as_lists() == [[1, 2, 1, 1]]


def test_names_of_few_rows_are_never_told() -> None:
    rare = ["Secret"] * (NAME_SEEN - 1) + ["often"] * 50
    told = profile(Recipe.TABULAR, {"who": words(rare)})
    assert "Secret" not in json.dumps(told)
    assert told["gauges"][0]["counts"] == [50, NAME_SEEN - 1, 0]
    # an id a row: nothing but lengths and kinds of characters
    ids = profile(Recipe.TABULAR, {"id": words([f"customer {n}" for n in range(100)])})
    assert "customer" not in json.dumps(ids)
    assert [one["what"] for one in ids["gauges"]] == ["length", "script", "characters"]


def test_texts_are_told_apart_by_script_and_length() -> None:
    texts = words(
        ["a fine day", "今天天气很好", "今日はとても良い", "сегодня", "42!", "", "오늘", "مرحبا", "ŵé"]
    )
    scripts = [
        [*SCRIPTS, "none"][number] for number in scripts_of(kinds_of(texts))
    ]  # kana beside Chinese characters is Japanese
    assert scripts == ["latin", "han", "japanese", "cyrillic", "none", "none", "hangul", "arabic", "latin"]
    kinds = dict(zip(KINDS, kinds_of(words(["Ab 12, 中\ud800"]))[0].tolist(), strict=True))
    assert (kinds["latin"], kinds["digits"], kinds["space"], kinds["han"]) == (2, 2, 2, 1)


def test_pictures_are_told_by_light_alike_as_bytes_and_as_shares() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (200, 1, 8, 8)).astype(np.uint8)
    told = profile(Recipe.IMAGE, {"image": pixels})
    assert [one["what"] for one in told["gauges"]] == ["brightness", "contrast"]
    tally = Tally(told["gauges"])
    tally.add({"image": pixels.astype(np.float32) / np.float32(255)})  # as a caller sends them
    for one, seen in zip(told["gauges"], tally.as_lists(), strict=True):
        assert np.abs(np.asarray(one["counts"]) - np.asarray(seen)).sum() <= 2  # rounding at an edge


def test_writers_and_recommenders_have_no_profile() -> None:
    texts = {"text": words(["a", "b"])}
    assert profile(Recipe.LANGUAGE, texts) is None
    assert profile(Recipe.RECOMMEND, {"user": words(["ana"]), "liked": words([""])}) is None
    assert profile(Recipe.SENTIMENT, texts) is not None


def test_large_data_is_sampled_the_same_way_each_time() -> None:
    rows = table(gauges.MOST_ROWS * 2)
    assert profile(Recipe.TABULAR, rows) == profile(Recipe.TABULAR, rows)
    assert profile(Recipe.TABULAR, rows)["rows"] == gauges.MOST_ROWS


def test_a_worker_counts_what_it_is_asked_and_keeps_no_value(tmp_path: Path) -> None:
    told = profile(Recipe.TABULAR, table())
    watch = Watch(tmp_path / "watch.json", ("a", "b"), told)
    live = table(60, shift=20.0, seed=2)
    for row in range(60):
        watch.asked({name: column[row : row + 1] for name, column in live.items()}, 1)
        watch.saw(np.asarray([[0.2, 0.8]], dtype=np.float32))
    watch.write()
    said = json.loads((tmp_path / "watch.json").read_text())
    assert said["inputs"]["rows"] == 60
    tally = Tally(told["gauges"])
    tally.add(live)
    assert said["inputs"]["counts"] == tally.as_lists()
    ages = said["inputs"]["counts"][0]
    assert sum(ages) == 60 and sum(ages[7:10]) > 40, "they are twenty years older"
    assert said["classes"] == {"b": 60}


def test_a_worker_counts_so_many_rows_a_second_and_no_more(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "watch.json", ("a", "b"), profile(Recipe.TABULAR, table()))
    big = table(500)
    for _ in range(20):
        watch.asked(big, 500)
    watch.saw(np.zeros((1, 2), dtype=np.float32))
    watch.write()
    first = json.loads((tmp_path / "watch.json").read_text())["inputs"]["rows"]
    assert first == MOST_INPUT_ROWS
    watch.asked(big, 500)
    watch.saw(np.zeros((1, 2), dtype=np.float32))
    watch.write()
    assert json.loads((tmp_path / "watch.json").read_text())["inputs"]["rows"] == 2 * MOST_INPUT_ROWS


def test_a_profile_that_does_not_fit_costs_its_counts_and_nothing_else(tmp_path: Path) -> None:
    told = {"rows": 1, "gauges": [{"input": "age", "what": "value", "edges": [1.0], "counts": [1, 1, 1]}]}
    watch = Watch(tmp_path / "watch.json", ("a", "b"), told)
    for _ in range(2):
        watch.asked({"age": words(["no number"])}, 1)
        watch.saw(np.asarray([[0.2, 0.8]], dtype=np.float32))
        watch.write()
    assert json.loads((tmp_path / "watch.json").read_text())["classes"] == {"b": 2}


def test_no_memory_to_join_the_requests_costs_the_inputs_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    watch = Watch(tmp_path / "watch.json", ("a", "b"), profile(Recipe.TABULAR, table()))
    for _ in range(2):
        watch.asked(table(1), 1)
    watch.saw(np.asarray([[0.2, 0.8]], dtype=np.float32))
    monkeypatch.setattr(np, "concatenate", full)
    watch.write()
    said = json.loads((tmp_path / "watch.json").read_text())
    assert said["classes"] == {"b": 1} and "inputs" not in said


def test_a_trained_model_carries_its_profile_and_its_worker_counts_live_rows(
    finished: Path, worker: Worker
) -> None:
    for variant in ("original", "int8"):
        bundle = json.loads((finished.parent / "result" / variant / "bundle.json").read_text())
        told = bundle["profile"]
        assert [(one["input"], one["what"]) for one in told["gauges"]] == [
            ("image", "brightness"),
            ("image", "contrast"),
        ]
        assert told["rows"] == manifest(finished).rows_trained
        assert all(sum(one["counts"]) == told["rows"] for one in told["gauges"])
    sample = np.asarray(bundle["sample"]["image"])
    body = {
        "inputs": [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": list(sample.shape),
                "data": sample.ravel().tolist(),
            }
        ]
    }
    client = worker.client()
    told_in = worker.socket.parent / "watch.json"
    before = json.loads(told_in.read_text())["inputs"]["rows"] if told_in.exists() else 0
    for _ in range(3):
        assert client.ask(body)[0] == 200
    client.close()

    def rows() -> int:
        return int(json.loads(told_in.read_text())["inputs"]["rows"]) if told_in.exists() else 0

    wait_for(lambda: rows() >= before + 3, what="the counts")
