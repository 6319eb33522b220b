"""The policy, on plain values: who goes next, who waits, and for what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobs.scheduling import PATIENCE, Capacity, Demand, Holding, Quota, decide, line_up

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TWO = Capacity(node="here", processes=2)


def ask(
    job: int, *, tenant: int = 1, processes: int = 1, gpus: int = 0, age_s: float = 0, **more: object
) -> Demand:
    since = NOON - timedelta(seconds=age_s)
    return Demand(job=job, tenant=tenant, processes=processes, gpus=gpus, since=since, **more)  # type: ignore[arg-type]


def placed(
    queue: list[Demand], held: list[Holding] | None = None, capacity: Capacity = TWO, **quotas: Quota
) -> list[int]:
    by_tenant = {int(name.removeprefix("t")): quota for name, quota in quotas.items()}
    return [one.job for one in decide(queue, held or [], capacity, by_tenant, NOON) if one.place]


def why(
    queue: list[Demand], held: list[Holding] | None = None, capacity: Capacity = TWO, **quotas: Quota
) -> dict[int, str]:
    by_tenant = {int(name.removeprefix("t")): quota for name, quota in quotas.items()}
    return {
        one.job: one.waiting_for
        for one in decide(queue, held or [], capacity, by_tenant, NOON)
        if not one.place
    }


def test_the_oldest_job_goes_first():
    assert placed([ask(1, age_s=5, processes=2), ask(2, age_s=9, processes=2)]) == [2]


def test_tenants_take_turns():
    crowd = [ask(n, tenant=1, age_s=100 - n) for n in range(1, 5)]
    assert [one.job for one in line_up([*crowd, ask(9, tenant=2, age_s=1)])] == [1, 9, 2, 3, 4]


def test_who_holds_least_begins():
    held = [Holding(tenant=1, processes=1)]
    assert placed([ask(1, tenant=1, age_s=50), ask(2, tenant=2, age_s=1)], held) == [2]


def test_what_does_not_fit_is_told_what_is_free():
    assert why([ask(1, processes=2)], [Holding(tenant=2, processes=1)]) == {
        1: "waiting for 2 processes; 1 of 2 is free"
    }


def test_a_gpu_is_given_to_one_job_only():
    machine = Capacity(node="here", processes=8, gpus=4)
    held = [Holding(tenant=2, processes=1, gpus=(0, 2))]
    first, second = decide([ask(1, processes=2, gpus=2, age_s=5), ask(2, gpus=1)], held, machine, {}, NOON)
    assert first.gpus == (1, 3)
    assert second.waiting_for == "waiting for 1 GPU; 0 of 4 are free"


def test_a_quota_stops_one_tenant_and_nobody_else():
    queue = [ask(1, tenant=1, age_s=9), ask(2, tenant=2)]
    held = [Holding(tenant=1, processes=1)]
    machine = Capacity(node="here", processes=4)
    assert placed(queue, held, machine, t1=Quota(processes=1)) == [2]
    assert why(queue, held, machine, t1=Quota(processes=1)) == {
        1: "waiting for 1 process; your quota is 1 and 1 in use"
    }


def test_a_small_job_may_pass_a_big_one_that_has_just_come():
    queue = [ask(1, processes=2, age_s=5), ask(2, processes=1)]
    assert placed(queue, [Holding(tenant=3, processes=1)]) == [2]


def test_nobody_passes_a_big_job_that_has_waited_long():
    queue = [ask(1, processes=2, age_s=PATIENCE.total_seconds() + 1), ask(2, processes=1)]
    held = [Holding(tenant=3, processes=1)]
    assert placed(queue, held) == []
    assert why(queue, held)[2] == "waiting in line behind a larger job that has waited longer"


def test_a_job_that_no_worker_took_waits_for_its_next_try():
    later = ask(1, ready_at=NOON + timedelta(seconds=30))
    assert why([later]) == {1: "no worker took it; trying again at 12:00:30 UTC"}


def test_every_job_gets_exactly_one_decision():
    queue = [ask(n, tenant=n % 3, processes=1 + n % 2) for n in range(20)]
    decisions = decide(queue, [], Capacity(node="here", processes=7), {}, NOON)
    assert sorted(one.job for one in decisions) == list(range(20))
    held = sum(queue[one.job].processes for one in decisions if one.place)
    assert held <= 7


def test_an_elastic_job_starts_with_what_is_free():
    (decision,) = decide(
        [ask(1, processes=2, min_processes=1)], [Holding(tenant=2, processes=1)], TWO, {}, NOON
    )
    assert decision.place and decision.processes == 1


def test_an_elastic_job_takes_all_it_asked_for_where_there_is_room():
    (decision,) = decide([ask(1, processes=2, min_processes=1)], [], TWO, {}, NOON)
    assert decision.processes == 2


def test_an_elastic_job_waits_for_its_fewest():
    held = [Holding(tenant=2, processes=3)]
    machine = Capacity(node="here", processes=4)
    assert why([ask(1, processes=4, min_processes=2)], held, machine) == {
        1: "waiting for 2 processes; 1 of 4 is free"
    }


def test_an_elastic_job_keeps_to_the_quota_of_its_tenant():
    held = [Holding(tenant=1, processes=1)]
    machine = Capacity(node="here", processes=8)
    queue = [ask(1, processes=4, min_processes=1)]
    (decision,) = decide(queue, held, machine, {1: Quota(processes=3)}, NOON)
    assert decision.processes == 2


def test_an_elastic_job_takes_one_gpu_for_each_process_it_gets():
    machine = Capacity(node="here", processes=8, gpus=4)
    held = [Holding(tenant=2, processes=3, gpus=(0, 1, 3))]
    (decision,) = decide([ask(1, processes=4, gpus=4, min_processes=1)], held, machine, {}, NOON)
    assert (decision.processes, decision.gpus) == (1, (2,))


@given(processes=st.integers(1, 8), fewest=st.integers(1, 8), used=st.integers(0, 9), room=st.integers(0, 8))
def test_an_elastic_job_never_gets_more_than_there_is_nor_less_than_it_needs(processes, fewest, used, room):
    fewest = min(fewest, processes)
    machine = Capacity(node="here", processes=room)
    held = [Holding(tenant=2, processes=used)]
    (decision,) = decide([ask(1, processes=processes, min_processes=fewest)], held, machine, {}, NOON)
    assert decision.place == (room - used >= fewest)
    if decision.place:
        assert decision.processes == min(processes, room - used)
