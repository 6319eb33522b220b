"""What schedulers wrote down about the time things were held, for the books to be compared with.

Billing has never heard of a job: whoever schedules registers a reader here and answers with shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from tenants.models import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """One stretch something was held, as its scheduler wrote it down for itself.

    It was given back between `ended_from` and `ended_to`: one moment where somebody saw it, the last sign of life
    and the moment of noticing where nobody did. Both None: it is held still.
    """

    name: str  # for the person who must find it: "job_… attempt 2"
    meters: frozenset[str]  # any of these may bill it
    units: int
    allocations: frozenset[int]  # ids of what was billed for it, of any meter
    started_at: datetime
    ended_from: datetime | None = None
    ended_to: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timesheet:
    """Every shift of a tenant; `owned` picks those of some subjects whose time nobody else may bill."""

    shifts: tuple[Shift, ...]
    owned: Callable[[Iterable[str]], set[str]]


Reader = Callable[[Tenant], Timesheet]
_readers: dict[str, Reader] = {}


def register(name: str, reader: Reader) -> None:
    """Let a scheduler answer for its time, when the program starts. The same name again takes its place."""
    _readers[name] = reader


def of(tenant: Tenant) -> Iterable[Timesheet]:
    """One timesheet from every scheduler there is."""
    return [reader(tenant) for _name, reader in sorted(_readers.items())]
