"""Who goes next: pure policy over plain values. (queue, what is held, capacity, quotas, now) -> decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

# a big job at the head may be overtaken by smaller ones for this long; then everybody waits for it
PATIENCE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A job in line and what it wants. With GPUs, each process takes one."""

    job: int
    tenant: int
    processes: int
    gpus: int
    since: datetime
    min_processes: int | None = None  # it may run with as few; None: not with fewer
    ready_at: datetime | None = None  # not before this moment: its last try found no worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a live attempt of some tenant holds."""

    tenant: int
    processes: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one node has in all."""

    node: str
    processes: int
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one tenant may hold at once; None is no limit."""

    processes: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one job now: a place, or a sentence that says why it waits."""

    job: int
    place: bool
    processes: int = 0
    gpus: tuple[int, ...] = ()
    waiting_for: str = ""


def decide(
    queue: Iterable[Demand],
    held: Sequence[Holding],
    capacity: Capacity,
    quotas: dict[int, Quota],
    now: datetime,
) -> list[Decision]:
    """One decision for every job in line, in the order in which they were looked at."""
    busy = list(held)
    decisions: list[Decision] = []
    blocked: Demand | None = None  # the first whose turn it is and who does not fit
    for demand in line_up(queue, held):
        quota = quotas.get(demand.tenant, Quota())
        demand = _shrunk(demand, busy, capacity, quota)
        wait = _not_yet(demand, now) or _over_quota(demand, busy, quota)
        if not wait and blocked is not None and now - blocked.since > PATIENCE:
            wait = "waiting in line behind a larger job that has waited longer"
        if not wait:
            wait = _does_not_fit(demand, busy, capacity)
            if wait and blocked is None:
                blocked = demand
        if wait:
            decisions.append(Decision(job=demand.job, place=False, waiting_for=wait))
            continue
        gpus = free_gpus(busy, capacity)[: demand.gpus]
        busy.append(Holding(tenant=demand.tenant, processes=demand.processes, gpus=gpus))
        decisions.append(Decision(job=demand.job, place=True, processes=demand.processes, gpus=gpus))
    return decisions


def line_up(queue: Iterable[Demand], held: Sequence[Holding] = ()) -> list[Demand]:
    """Round robin between tenants, oldest job first within each; who holds least begins."""
    lines: dict[int, list[Demand]] = {}
    for demand in sorted(queue, key=lambda one: (one.since, one.job)):
        lines.setdefault(demand.tenant, []).append(demand)
    load = {tenant: sum(one.processes for one in held if one.tenant == tenant) for tenant in lines}
    order = sorted(lines, key=lambda tenant: (load[tenant], lines[tenant][0].since, tenant))
    longest = max(map(len, lines.values()), default=0)
    return [lines[tenant][turn] for turn in range(longest) for tenant in order if turn < len(lines[tenant])]


def free_gpus(held: Sequence[Holding], capacity: Capacity) -> tuple[int, ...]:
    """Numbers of the GPUs nobody holds, lowest first."""
    taken = {gpu for holding in held for gpu in holding.gpus}
    return tuple(gpu for gpu in range(capacity.gpus) if gpu not in taken)


def _shrunk(demand: Demand, busy: Sequence[Holding], capacity: Capacity, quota: Quota) -> Demand:
    """An elastic job asks for no more than there is, unless that is fewer than it can run with."""
    fewest = demand.min_processes
    if fewest is None:
        return demand
    mine = [one for one in busy if one.tenant == demand.tenant]
    room = [capacity.processes - sum(one.processes for one in busy)]
    if quota.processes is not None:
        room.append(quota.processes - sum(one.processes for one in mine))
    if demand.gpus:
        room.append(len(free_gpus(busy, capacity)))
        if quota.gpus is not None:
            room.append(quota.gpus - sum(len(one.gpus) for one in mine))
    fits = min(demand.processes, *room)
    # with too little room it waits for the fewest, and says so
    processes = max(fewest, fits)
    return replace(demand, processes=processes, gpus=processes if demand.gpus else 0)


def _not_yet(demand: Demand, now: datetime) -> str:
    if demand.ready_at is None or demand.ready_at <= now:
        return ""
    return f"no worker took it; trying again at {demand.ready_at:%H:%M:%S} UTC"


def _over_quota(demand: Demand, busy: Sequence[Holding], quota: Quota) -> str:
    mine = [one for one in busy if one.tenant == demand.tenant]
    for noun, limit, used, wanted in (
        ("process", quota.processes, sum(one.processes for one in mine), demand.processes),
        ("GPU", quota.gpus, sum(len(one.gpus) for one in mine), demand.gpus),
    ):
        if limit is not None and wanted and used + wanted > limit:
            return f"waiting for {_count(wanted, noun)}; your quota is {limit} and {used} in use"
    return ""


def _does_not_fit(demand: Demand, busy: Sequence[Holding], capacity: Capacity) -> str:
    free = max(0, capacity.processes - sum(one.processes for one in busy))
    if demand.processes > free:
        return f"waiting for {_count(demand.processes, 'process')}; {_free(free, capacity.processes)} free"
    gpus = len(free_gpus(busy, capacity))
    if demand.gpus > gpus:
        return f"waiting for {_count(demand.gpus, 'GPU')}; {_free(gpus, capacity.gpus)} free"
    return ""


def _count(number: int, noun: str) -> str:
    plural = {"process": "processes", "GPU": "GPUs"}
    return f"{number} {noun if number == 1 else plural[noun]}"


def _free(free: int, total: int) -> str:
    return f"{free} of {total} is" if free == 1 else f"{free} of {total} are"
