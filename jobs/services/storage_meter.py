"""What is kept costs: byte-seconds of every dataset and model, window after window without gap or double."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Min

from billing import clock
from billing.services.metering import MAX_LATE, record_usage
from jobs.models import Artifact, DatasetVersion, JobFile, UsageLog
from tenants.models import Tenant

WINDOW_S = 300
_MARK = (
    "storage:"  # the name of a tenant's mark among the usage logs; its offset is the end of the last window
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Bytes of one subject, since when."""

    subject: str
    title: str
    size_bytes: int
    since: datetime


def meter_storage() -> int:
    """Record what every tenant kept since the last time; returns how many records are new."""
    return sum(_meter(tenant) for tenant in Tenant.objects.order_by("pk"))


def _meter(tenant: Tenant) -> int:
    with transaction.atomic():
        # the mark's lock: two beats at once measure one after the other, and the second finds nothing left
        UsageLog.objects.get_or_create(name=_MARK + tenant.public_id, defaults={"finished_at": clock.now()})
        mark = UsageLog.objects.select_for_update().get(name=_MARK + tenant.public_id)
        now = clock.now()
        end = _floor(now)
        start = _start(tenant, mark, now)
        if start is None or start >= end:
            return 0
        new = 0
        for begin, until in _days(start, end):
            new += _record(tenant, begin, until)
        mark.offset = int(end.timestamp())
        mark.save(update_fields=["offset"])
        return new


def _start(tenant: Tenant, mark: UsageLog, now: datetime) -> datetime | None:
    """Where the last window ended; at first, where the first file came. Billing takes nothing too old."""
    if mark.offset:
        start = datetime.fromtimestamp(mark.offset, UTC)
    else:
        firsts = [
            rows.filter(tenant=tenant).aggregate(first=Min("created_at"))["first"]
            for rows in (DatasetVersion.objects.all(), Artifact.objects.all(), JobFile.objects.all())
        ]
        known = [first for first in firsts if first is not None]
        if not known:
            return None
        start = _floor(min(known))
    return max(start, _floor(now - MAX_LATE + timedelta(days=1)))


def _record(tenant: Tenant, begin: datetime, until: datetime) -> int:
    """One record a subject: every file counts from the later of its birth and the window's beginning."""
    amounts: dict[str, tuple[str, Decimal]] = {}
    for one in _kept(tenant, until):
        held = until - max(begin, one.since)
        microseconds = held // timedelta(microseconds=1)
        amount = Decimal(one.size_bytes) * Decimal(microseconds) / 1_000_000
        amounts[one.subject] = (one.title, amounts.get(one.subject, ("", Decimal(0)))[1] + amount)
    return sum(
        record_usage(
            tenant,
            meter="storage",
            quantity=amount,
            source="storage",
            key=f"{subject}:{begin:%Y-%m-%dT%H:%M:%SZ}",
            subject=subject,
            subject_title=title,
            event_time=begin,
            dims={"until": f"{until:%Y-%m-%dT%H:%M:%SZ}"},
        )
        for subject, (title, amount) in amounts.items()
        if amount
    )


def _kept(tenant: Tenant, until: datetime) -> Iterator[Kept]:
    # a window in which the files were deleted is not counted: five minutes, in the tenant's favour
    versions = DatasetVersion.objects.filter(tenant=tenant, created_at__lt=until, files_deleted_at=None)
    for subject, title, size, since in versions.values_list(
        "dataset__public_id", "dataset__name", "size_bytes", "created_at"
    ):
        yield Kept(subject=subject, title=title, size_bytes=size, since=since)
    files = Artifact.objects.filter(tenant=tenant, created_at__lt=until, version__files_deleted_at=None)
    for subject, title, size, since in files.values_list(
        "version__model__public_id", "version__model__name", "size_bytes", "created_at"
    ):
        yield Kept(subject=subject, title=title, size_bytes=size, since=since)
    made = JobFile.objects.filter(tenant=tenant, created_at__lt=until)
    for subject, title, size, since in made.values_list(
        "job__public_id", "job__name", "size_bytes", "created_at"
    ):
        yield Kept(subject=subject, title=title, size_bytes=size, since=since)


def _floor(moment: datetime) -> datetime:
    return datetime.fromtimestamp(int(moment.timestamp()) // WINDOW_S * WINDOW_S, UTC)


def _days(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The window cut at midnights, since a day's usage belongs to the day."""
    while start < end:
        midnight = datetime(start.year, start.month, start.day, tzinfo=UTC) + timedelta(days=1)
        yield start, min(midnight, end)
        start = midnight
