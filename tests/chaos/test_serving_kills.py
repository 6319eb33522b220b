"""Gateway and workers are killed at random under load: every answered request is counted once, none is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from bench import kills

KILLS = int(os.environ.get("TAUON_KILLS", "5"))  # `make chaos` says 200


@pytest.mark.slow
@pytest.mark.chaos
def test_kills_lose_no_count_and_give_no_wrong_answer(record_property: Callable[[str, Any], None]) -> None:
    outcome = kills.run(KILLS)
    record_property("availability", round(outcome.availability, 4))
    print(f"{KILLS} kills, {outcome.availability:.2%} of {outcome.tried} requests answered")
    assert outcome.kills == KILLS
    assert len(outcome.answered) > 10 * KILLS, "there was no load to speak of"
    assert outcome.wrong == []
    assert outcome.not_counted == 0
    assert outcome.counted_twice == 0
    assert set(outcome.refused) <= {503}, outcome.refused


def test_a_lost_and_a_doubled_line_would_be_noticed() -> None:
    outcome = kills.Outcome(answered={"a", "b"}, tried=3)
    outcome.counted.update(["b", "b", "c"])
    assert (outcome.not_counted, outcome.counted_twice) == (1, 1)
    assert outcome.availability == pytest.approx(2 / 3)
