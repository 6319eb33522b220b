"""Rows that are set aside to tell when to stop: where there are enough, and never at the price of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.helpers import digits_run, table_run
from trainer.contract import DataSpec, EarlyStopping, EventKind, Recipe, RunSpec, read_events
from trainer.control import Control
from trainer.data import Rows
from trainer.events import Events
from trainer.prepare import Prepared, Run, prepare

CHOICES = DataSpec(path="data/table.csv", format="csv", user="user", item="item", rating="rating")


def prepared_of(path: Path, *, stops_early: bool = True, **changes: Any) -> Prepared:
    spec = RunSpec.from_json(path.read_text())
    early = EarlyStopping() if stops_early else None
    spec = replace(spec, training=replace(spec.training, early_stopping=early), **changes)
    events = Events(path.parent / "events.jsonl")
    try:
        return prepare(
            Run(folder=path.parent, spec=spec, events=events, control=Control(path.parent / "none"))
        )
    finally:
        events.close()


def warnings(path: Path) -> list[str]:
    told = read_events(path.parent / "events.jsonl")[0]
    return [one.data["text"] for one in told if one.kind is EventKind.LOG and one.data["level"] == "warning"]


def test_few_numbers_are_all_trained_on_where_a_tenth_of_them_cannot_be_set_aside(tmp_path: Path) -> None:
    path = table_run(tmp_path, ["x", "y"], [[n, n * 1.5] for n in range(11)], "y")
    small = {"recipe": Recipe.REGRESSION}
    plain = prepared_of(path, stops_early=False, **small)
    assert warnings(path) == []
    found = prepared_of(path, **small)
    assert len(found.split.watched) == 0
    assert found.split.train.tolist() == plain.split.train.tolist()
    assert found.split.seen_meanwhile.tolist() == plain.split.holdout.tolist()
    (said,) = warnings(path)
    assert said.startswith("No training rows can be set aside to tell when to stop") and "at least 10" in said


def test_users_with_three_choices_each_can_be_learned_from(tmp_path: Path) -> None:
    choices = [[f"u{user}", f"i{(7 * user + n) % 30}", 5] for user in range(30) for n in range(3)]
    path = table_run(tmp_path, ["user", "item", "rating"], choices, "rating")
    found = prepared_of(path, recipe=Recipe.RECOMMEND, data=CHOICES)
    assert (len(found.split.train), len(found.split.holdout), len(found.split.watched)) == (60, 30, 0)
    assert len(warnings(path)) == 1


def test_pictures_are_set_aside_without_a_copy_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = digits_run(tmp_path, images=200)
    copied: list[str] = []
    as_it_is = Rows.take

    def noted(self: Rows, rows: np.ndarray) -> Rows:
        copied.extend(self.inputs)
        return as_it_is(self, rows)

    monkeypatch.setattr(Rows, "take", noted)
    found = prepared_of(path)
    assert copied == []
    assert 10 < len(found.split.watched) < 40
    everything = np.concatenate([found.split.train, found.split.holdout, found.split.watched])
    assert sorted(everything.tolist()) == list(range(200))
