"""Every row is used once an epoch, the same rows are held out for the same seed, and bad rows are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.contract import DataSpec
from trainer.data import (
    Rows,
    batches,
    classes_of,
    epoch_order,
    read_table,
    shard,
    split,
    steps_per_epoch,
    without_doubles,
    words,
)
from trainer.failures import BadData


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 400),
    batch_size=st.integers(1, 90),
    world=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 50),
)
def test_an_epoch_loses_no_row_and_doubles_none(
    rows: int, batch_size: int, world: int, seed: int, epoch: int
) -> None:
    parts = list(batches(epoch_order(rows, seed=seed, epoch=epoch), batch_size))
    assert len(parts) == steps_per_epoch(rows, batch_size)
    seen = [row for part in parts for rank in range(world) for row in shard(part, rank=rank, world=world)]
    assert sorted(seen) == list(range(rows))


def test_the_order_is_the_same_for_the_same_seed_and_differs_between_epochs() -> None:
    first = epoch_order(100, seed=7, epoch=0)
    assert (first == epoch_order(100, seed=7, epoch=0)).all()
    assert (first != epoch_order(100, seed=7, epoch=1)).any()
    assert (first != epoch_order(100, seed=8, epoch=0)).any()


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=4, max_size=200).filter(lambda x: len(x) > len(set(x))),
    holdout=st.floats(0.05, 0.9),
    seed=st.integers(0, 1000),
)
def test_the_split_is_disjoint_complete_and_leaves_every_class_to_learn_from(
    labels: list[int], holdout: float, seed: int
) -> None:
    numbers = np.asarray(labels, dtype=np.int64)
    parts = split(numbers, holdout=holdout, seed=seed)
    together = np.concatenate([parts.train, parts.holdout])
    assert sorted(together) == list(range(len(labels)))
    assert set(numbers[parts.train]) == set(labels)
    again = split(numbers, holdout=holdout, seed=seed)
    assert (again.holdout == parts.holdout).all()


def test_the_split_keeps_the_share_of_each_class() -> None:
    labels = np.asarray([0] * 80 + [1] * 20, dtype=np.int64)
    parts = split(labels, holdout=0.25, seed=1)
    assert np.bincount(labels[parts.holdout]).tolist() == [20, 5]


def test_copies_of_a_row_are_left_out_but_two_missing_values_are_the_same() -> None:
    number = np.asarray([1.0, 1.0, np.nan, np.nan, 1.0], dtype=np.float32)
    rows = Rows(
        inputs={"n": number, "w": words(["a", "a", "b", "b", "a"])}, labels=words(["x", "x", "x", "x", "y"])
    )
    kept, doubles = without_doubles(rows)
    assert doubles == 2
    assert list(kept.labels) == ["x", "x", "y"]


def test_classes_that_are_numbers_come_in_the_order_of_numbers() -> None:
    assert classes_of(words(["10", "9", "1"] * 4)) == ("1", "9", "10")
    assert classes_of(words(["b", "a"] * 5)) == ("a", "b")


def test_one_class_or_too_few_rows_is_bad_data() -> None:
    with pytest.raises(BadData, match="at least two classes"):
        classes_of(words(["cat"] * 20))
    with pytest.raises(BadData, match="at least 10"):
        classes_of(words(["cat", "dog"]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n3\n", r"row 2 \(line 3\): 1 fields, but the header has 2"),
        ("a,a\n1,2\n", "names a more than once"),
        ("a,b\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_a_broken_csv_is_named_by_row_and_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(BadData, match=said):
        read_table(tmp_path, DataSpec(path="t.csv", format="csv"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}\n\n{"a": \n', r"row 2 \(line 3\): not JSON"),
        ("[1]\n", r"row 1 \(line 1\): a row is a JSON object"),
        ('{"a": [1]}\n', "column 'a' holds a list"),
    ],
)
def test_a_broken_json_line_is_named_by_row_and_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(BadData, match=said):
        read_table(tmp_path, DataSpec(path="t.jsonl", format="jsonl"))


def test_a_table_that_is_not_text_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n\xff\xfe\x00,1\n")
    with pytest.raises(BadData, match="UTF-8"):
        read_table(tmp_path, DataSpec(path="t.csv", format="csv"))
