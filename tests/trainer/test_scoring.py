"""The gate asks scores, whatever they measure: counted where they are right or wrong, averaged where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.compress import gate
from trainer.scoring import summary


def figures(scores: list[float], before: list[float], guess: list[float]) -> dict[str, object]:
    made = summary(np.array(scores), np.array(before), np.array(guess))
    return {**made, "holdout_rows": len(scores)}


def test_rows_that_are_right_or_wrong_are_counted() -> None:
    said = figures([1, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 1])
    assert (said["right_rows"], said["lost_rows"], said["gained_rows"]) == (3, 1, 1)
    assert (said["lost_to_guess"], said["gained_on_guess"]) == (0, 2)
    assert gate.interval(said) == gate.wilson(3, 4)
    assert gate.highest_drop(said) == gate.drop_bound(lost=1, gained=1, rows=4)


def test_other_scores_are_compared_row_by_row() -> None:
    dice = np.random.default_rng(3)
    before = dice.normal(0.5, 2.0, 500)
    said = figures(list(before - 0.01), list(before), list(before - 1))
    assert gate.highest_drop(said) == pytest.approx(0.01)  # every row lost the same: there is no doubt
    low, high = gate.interval(said)
    assert low < before.mean() - 0.01 < high
    noisy = figures(list(before - 0.01 + dice.normal(0, 1, 500)), list(before), list(before - 1))
    assert gate.highest_drop(noisy) > 0.03
    assert gate.beats_guess(said)
    assert not gate.beats_guess(figures(list(before), list(before), list(before + dice.normal(0, 1, 500))))
