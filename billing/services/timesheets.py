"""Is the metered time the time the scheduler held? Two records of one thing, each written without the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import connection

from billing import clock, money, timesheets
from billing.services.metering import DEAD_AFTER_LEASES, SILENT
from billing.timesheets import Shift
from tenants.models import AuditEntry, Tenant

LATE = timedelta(seconds=1)  # no beat comes on the dot
LEAST_BEAT = timedelta(
    seconds=5
)  # a beat that waits for an invoice may come this late, however short beats are
_METERED = """
select a.id, a.public_id, a.subject, a.meter_id, a.lease_s, a.last_beat_at, a.ended_at, a.end_reason,
  coalesce(sum(extract(epoch from i.ended_at - i.started_at) * i.units), 0)
from billing_allocation a left join billing_usageinterval i on i.allocation_id = a.id
where a.tenant_id = %s group by a.id
"""


@dataclass(frozen=True, slots=True)
class _Metered:
    """One allocation with the unit-seconds of its intervals."""

    id: int
    public_id: str
    subject: str
    meter: str
    lease_s: int
    last_beat_at: datetime
    ended_at: datetime | None
    end_reason: str
    seconds: Decimal

    def was_silent(self, now: datetime) -> bool:
        """Whether its holder was or is taken for dead: it is billed to the last beat, however long it was held."""
        dead = self.ended_at is None and now - self.last_beat_at > self.lease
        return self.end_reason == SILENT or dead

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_s * DEAD_AFTER_LEASES)


def differences(tenant: Tenant) -> list[str]:
    """Where the intervals are not the time a scheduler held, by more than one beat, in words."""
    now = clock.now()
    # held before metered: what is placed in between is then metered and not yet held, for no time at all
    sheets = list(timesheets.of(tenant))
    with connection.cursor() as cursor:
        cursor.execute(_METERED, [tenant.pk])
        metered = [_Metered(*row) for row in cursor.fetchall()]
    accepted = _accepted(tenant)
    known = {one.id: one for one in metered}
    wrong: list[str] = []
    claimed: set[int] = set()
    for sheet in sheets:
        for shift in sheet.shifts:
            claimed |= shift.allocations
            if accepted and shift.ended_to and shift.ended_to <= accepted:
                continue
            mine = [known[pk] for pk in sorted(shift.allocations & known.keys())]
            wrong += _compare(shift, [one for one in mine if one.meter in shift.meters], now)
    stray = [
        one
        for one in metered
        if one.id not in claimed
        and one.seconds > _seconds(_beat())
        and not (accepted and one.ended_at and one.ended_at <= accepted)
    ]
    owned = {subject for sheet in sheets if stray for subject in sheet.owned({one.subject for one in stray})}
    return wrong + [
        f"allocation {one.public_id}: {money.plain(one.seconds)} s of {one.meter} are metered for "
        f"{one.subject}, and its scheduler held nothing"
        for one in stray
        if one.subject in owned
    ]


def _accepted(tenant: Tenant) -> datetime | None:
    """When staff last let the account go: they have judged what had ended by then, and it stays as it is."""
    looked = AuditEntry.objects.filter(tenant=tenant, action="account.unparked").order_by("-id").first()
    judged = looked.details.get("judged_until") if looked is not None else None
    return datetime.fromisoformat(judged) if judged else None


def _compare(shift: Shift, metered: Sequence[_Metered], now: datetime) -> list[str]:
    """One shift beside its allocations of its meters."""
    found = money.total([one.seconds for one in metered])
    spare = _seconds(_beat()) * shift.units
    # what runs has reported within its leases, or it is taken for dead
    unsaid = max((one.lease for one in metered), default=timedelta(0))
    first = max(shift.started_at, shift.ended_from or now - unsaid)
    last = max(shift.started_at, shift.ended_to or now)
    least = _seconds(first - shift.started_at) * shift.units
    most = _seconds(last - shift.started_at) * shift.units
    what = " and ".join(sorted({one.meter for one in metered} or shift.meters))
    told = f"{shift.name}: {money.plain(found)} s of {what} are metered, and its scheduler held"
    if found > most + spare:
        return [f"{told} {money.plain(most)} s"]
    if found < least - spare and not any(one.was_silent(now) for one in metered):
        return [f"{told} {money.plain(most if shift.ended_from is None else least)} s"]
    return []


def _beat() -> timedelta:
    return max(timedelta(seconds=settings.BEAT_S), LEAST_BEAT) + LATE


def _seconds(span: timedelta) -> Decimal:
    return Decimal(span // timedelta(microseconds=1)).scaleb(-6)
