"""Numbers predicted from a table: real data, raw rows in, the units of the data out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from tests.trainer.helpers import engine, events, manifest, table_run
from trainer.bundle import open_bundle
from trainer.contract import NEEDS, CompressionSpec, EventKind, Method, Recipe, RunSpec
from trainer.data import Rows, words
from trainer.failures import BadData
from trainer.recipes import regression
from trainer.tasks import REGRESSION


def regression_run(
    folder: Path, header: list[str], rows: list[list[Any]], label: str, **options: Any
) -> Path:
    usual = {**NEEDS[Recipe.REGRESSION].usual, **options}
    path = table_run(folder, header, rows, label, **usual)
    spec = replace(RunSpec.from_json(path.read_text()), recipe=Recipe.REGRESSION)
    path.write_text(spec.to_json())
    return path


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's 442 patients, some values taken out, with the recipe's own usual settings."""
    data = load_diabetes(scaled=False)
    dice = np.random.default_rng(5)
    rows: list[list[Any]] = []
    for values, target in zip(data.data, data.target, strict=True):
        row: list[Any] = [f"{value:g}" for value in values]
        if dice.random() < 0.2:
            row[2] = ""
        rows.append([*row, "female" if values[1] == 1 else "male", target])
    header = [*data.feature_names, "sex_word", "progress"]
    compression = CompressionSpec(methods=(Method.INT8,), max_accuracy_drop=0.05)
    folder = tmp_path_factory.mktemp("diabetes")
    spec = regression_run(folder, header, rows, "progress", compression=compression)
    done = engine(spec)
    assert done.returncode == 0, done.stderr[-3000:]
    return spec


def test_it_is_as_good_as_linear_regression_and_far_better_than_the_mean(diabetes: Path) -> None:
    data = load_diabetes(scaled=False)
    dice = np.random.default_rng(0)
    order = dice.permutation(len(data.target))
    held, train = order[:88], order[88:]
    straight = LinearRegression().fit(data.data[train], data.target[train])
    linear = r2_score(data.target[held], straight.predict(data.data[held]))
    found = manifest(diabetes)
    original = next(one for one in found.variants if one.name == "original")
    assert found.quality == "R²"
    assert found.baseline is not None
    assert found.baseline.name == "the mean"
    assert abs(found.baseline.value) < 0.05
    assert found.beats_baseline
    assert original.accuracy > 0.35
    assert original.accuracy > linear - 0.12  # other rows are held out there, and few of them
    assert set(original.figures) == {"MAE", "RMSE"}
    assert 30 < original.figures["MAE"] < original.figures["RMSE"] < 75


def test_the_gate_judges_a_variant_by_its_error(diabetes: Path) -> None:
    int8 = next(one for one in manifest(diabetes).variants if one.name == "int8")
    assert int8.drop_high is not None
    assert int8.passed_gate == (max(int8.accuracy_drop, int8.drop_high) <= 0.05)
    assert "R²" in int8.verdict
    assert abs(int8.accuracy_drop) < 0.05


def test_raw_rows_get_an_answer_in_the_units_of_the_data(diabetes: Path) -> None:
    bundle = open_bundle(diabetes.parent / "result" / "original")
    assert bundle.outputs == [{"name": "prediction", "datatype": "FP32", "shape": [-1]}]
    row = {name: np.array([np.nan], dtype=np.float32) for name in load_diabetes().feature_names}
    answers = bundle.probabilities(bundle.encode({**row, "sex_word": words(["female"])}))
    (amount,) = bundle.serve("prediction", answers, answers)
    assert 25 < amount < 346  # the smallest and the largest of the data
    assert [event.data for event in events(diabetes, EventKind.ERROR)] == []


def test_a_target_that_is_no_number_is_named_with_its_row(tmp_path: Path) -> None:
    rows = [[1, 2], [2, 3], [3, "many"]]
    spec = RunSpec.from_json(regression_run(tmp_path, ["a", "y"], rows, "y").read_text())
    with pytest.raises(BadData, match=r"row 3: the target 'y' is 'many', which is no number"):
        regression.read(tmp_path, spec.data)


def test_a_target_that_never_changes_is_refused() -> None:
    rows = Rows(inputs={"a": np.arange(20, dtype=np.float32)}, labels=np.full(20, 3.0))
    with pytest.raises(BadData, match="nothing to learn"):
        REGRESSION.split(rows, holdout=0.2, seed=1)


def test_a_price_is_learned_as_its_logarithm_and_a_temperature_is_not() -> None:
    dice = np.random.default_rng(1)
    for target, expected in ((np.exp(dice.normal(8, 1, 400)), True), (dice.normal(15, 8, 400), False)):
        rows = Rows(
            inputs={"a": np.arange(400, dtype=np.float32)},
            labels=target,
            extra={"target": np.full(400, "price", dtype=object)},
        )
        assert regression.learn(rows, np.arange(300))["target"]["logarithm"] is expected


def test_every_part_of_the_range_is_held_out() -> None:
    rows = Rows(inputs={"a": np.arange(100, dtype=np.float32)}, labels=np.arange(100.0))
    held = REGRESSION.split(rows, holdout=0.2, seed=1).holdout
    assert [int(((held >= low) & (held < low + 10)).sum()) for low in range(0, 100, 10)] == [2] * 10
