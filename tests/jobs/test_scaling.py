"""How many workers, and which: pure rules, no process."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobs.gateway.traffic import bucket, falls_into
from jobs.scaling import Bounds, Have, Load, Plan, Wanted, WarmHours, plan

MONDAY_9 = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def bounds(**more: object) -> Bounds:
    usual = {"fewest": 1, "most": 10, "target": 4, "up_after_s": 5, "down_after_s": 60, "zero_after_s": 300}
    return Bounds(**{**usual, **more})  # type: ignore[arg-type]


def run(load: Load, rules: Bounds, replicas: int, inside: list[float], *, start: float = 0.0) -> int:
    """A second each; returns the count at the end."""
    for second, count in enumerate(inside):
        now = start + second
        load.note(now, count, asked=count > 0)
        replicas = load.decide(rules, replicas=replicas, now=now, at=MONDAY_9)
    return replicas


def test_load_beyond_the_target_adds_workers() -> None:
    assert run(Load(began=0, last_request=0), bounds(), 1, [7.0] * 10) == 2
    assert run(Load(began=0, last_request=0), bounds(), 1, [4.0] * 10) == 1


def test_a_rush_is_answered_within_its_first_seconds_and_a_blip_is_not() -> None:
    rush = Load(began=0, last_request=0)
    assert run(rush, bounds(up_after_s=30), 1, [0.0] * 30 + [60.0, 60.0]) > 5
    blip = Load(began=0, last_request=0)
    assert run(blip, bounds(up_after_s=30), 1, [0.0] * 30 + [7.0]) == 1


def test_never_beyond_the_most_nor_below_the_fewest() -> None:
    assert run(Load(began=0, last_request=0), bounds(most=3), 1, [400.0] * 10) == 3
    assert run(Load(began=0, last_request=0), bounds(fewest=2), 5, [0.0] * 100) == 2


def test_workers_leave_only_when_a_whole_window_agrees() -> None:
    load = Load(began=0, last_request=0)
    assert run(load, bounds(), 4, [1.0] * 55) == 4
    assert run(load, bounds(), 4, [16.0] * 5 + [1.0] * 10, start=55) == 4  # the burst is still in the window
    assert run(load, bounds(), 4, [1.0] * 80, start=70) == 1


def test_without_a_request_it_sleeps_after_its_time_and_only_if_it_may() -> None:
    quiet = Load(began=0, last_request=0)
    assert run(quiet, bounds(fewest=0, zero_after_s=30), 1, [0.0] * 30) == 1
    assert run(quiet, bounds(fewest=0, zero_after_s=30), 1, [0.0] * 3, start=30) == 0
    called = Load(began=0, last_request=0)
    assert run(called, bounds(fewest=0, zero_after_s=30), 1, [0.0] * 20 + [0.1] + [0.0] * 15) == 1
    assert run(Load(began=0, last_request=0), bounds(fewest=1, zero_after_s=30), 1, [0.0] * 99) == 1


def test_warm_hours_hold_off_sleep_and_end_it() -> None:
    office = WarmHours.from_json({"days": [0, 1, 2, 3, 4], "from": "08:00", "to": "18:00", "replicas": 2})
    rules = bounds(fewest=0, zero_after_s=10, warm=(office,))
    assert run(Load(began=0, last_request=0), rules, 2, [0.0] * 100) == 2
    assert rules.floor(MONDAY_9) == 2
    assert rules.floor(MONDAY_9.replace(hour=18)) == 0
    assert rules.floor(MONDAY_9.replace(day=28)) == 0  # a Saturday


def test_warm_hours_may_pass_midnight() -> None:
    night = WarmHours.from_json({"days": [0], "from": "22:00", "to": "06:00", "replicas": 1})
    assert night.hold(MONDAY_9.replace(hour=23))
    assert night.hold(MONDAY_9.replace(day=24, hour=5))
    assert not night.hold(MONDAY_9.replace(hour=5))
    assert WarmHours.from_json(night.to_json()) == night


@pytest.mark.parametrize(
    "said",
    [
        {"days": [], "from": "08:00", "to": "09:00", "replicas": 1},
        {"days": [7], "from": "08:00", "to": "09:00", "replicas": 1},
        {"days": [1], "from": "8 o'clock", "to": "09:00", "replicas": 1},
        {"days": [1], "from": "08:00", "to": "09:00", "replicas": 0},
    ],
)
def test_hours_that_are_none_are_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        WarmHours.from_json(said)


# -- shares of requests --------------------------------------------------------------------------------------


def test_a_share_is_met_and_a_request_keeps_its_side() -> None:
    words = [f"req_0a1b2c3d4e5f{n:08x}" for n in range(20_000)]
    chosen = {word for word in words if falls_into(1_000, "ep_1", word)}
    assert 0.09 < len(chosen) / len(words) < 0.11
    assert chosen == {word for word in words if falls_into(1_000, "ep_1", word)}
    more = {word for word in words if falls_into(5_000, "ep_1", word)}
    assert chosen < more, "raising a share must move nobody back"
    other = {word for word in words if falls_into(1_000, "ep_2", word)}
    assert len(chosen & other) < 0.3 * len(chosen), (
        "endpoints must not all try their luck on the same callers"
    )


def test_nobody_and_everybody_are_exact() -> None:
    words = [f"word-{n}" for n in range(3_000)]
    assert not any(falls_into(0, "ep_1", word) for word in words)
    assert all(falls_into(10_000, "ep_1", word) for word in words)
    assert bucket("ep_1", "ana") == bucket("ep_1", b"ana")


# -- plans ---------------------------------------------------------------------------------------------------


def have(id: int, revision: int, status: str = "ready") -> Have:
    return Have(id=id, endpoint=1, revision=revision, status=status)


def test_what_is_missing_is_started() -> None:
    assert plan({1: Wanted(revision=7, count=2)}, [have(1, 7)]) == Plan(start=(7,), retire=())


def test_an_old_revision_stays_until_the_new_one_is_ready() -> None:
    wanted = {1: Wanted(revision=8, count=1)}
    assert plan(wanted, [have(1, 7)]) == Plan(start=(8,), retire=())
    assert plan(wanted, [have(1, 7), have(2, 8, "starting")]) == Plan(start=(), retire=())
    assert plan(wanted, [have(1, 7), have(2, 8)]) == Plan(start=(), retire=(1,))


def test_an_old_revision_that_never_answered_is_dropped_at_once() -> None:
    assert plan({1: Wanted(revision=8, count=1)}, [have(1, 7, "starting")]) == Plan(start=(8,), retire=(1,))


def test_a_stopped_or_vanished_endpoint_loses_everything() -> None:
    there = [have(1, 7), have(2, 7, "starting")]
    assert set(plan({1: Wanted(revision=7, count=0)}, there).retire) == {1, 2}
    assert set(plan({}, there).retire) == {1, 2}


def test_a_failed_endpoint_keeps_what_answers_and_tries_nothing() -> None:
    wanted = {1: Wanted(revision=8, count=1, may_start=False)}
    assert plan(wanted, [have(1, 7)]) == Plan(start=(), retire=())


def test_too_many_are_thinned_the_youngest_and_unready_first() -> None:
    there = [have(1, 7), have(2, 7), have(3, 7, "starting")]
    assert plan({1: Wanted(revision=7, count=1)}, there).retire == (3, 2)


def test_canary_and_shadow_stand_beside_what_answers() -> None:
    wanted = {1: Wanted(revision=7, count=1, beside={8: 1, 9: 1})}
    assert plan(wanted, [have(1, 7)]) == Plan(start=(8, 9), retire=())
    assert plan(wanted, [have(1, 7), have(2, 8), have(3, 9)]) == Plan(start=(), retire=())


def test_a_canary_taken_back_goes_and_one_promoted_stays() -> None:
    there = [have(1, 7), have(2, 8)]
    assert plan({1: Wanted(revision=7, count=1)}, there) == Plan(start=(), retire=(2,))
    assert plan({1: Wanted(revision=8, count=1)}, there) == Plan(start=(), retire=(1,))
    # promoted, but not yet as many as the old one has: the old one goes on
    assert plan({1: Wanted(revision=8, count=2)}, there) == Plan(start=(8,), retire=())
