"""Measures what is held and what was used. Only the database's clock bills.

An allocation bills from the moment it is opened to its last acknowledged beat, or to the moment it is closed.
Each beat writes down [settled_through, now) and moves the mark in one transaction, under the row's lock: the
same beat twice, two beats at once or a beat of somebody fenced out never bill a second twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.expressions import ExpressionWrapper
from django.db.models.fields import DurationField
from django.utils.translation import gettext as _

from billing import clock, money, rating
from billing.models import Allocation, Hold, Invoice, UsageInterval
from billing.services import accounts, budgets, credits, holds, locks, prices, usage
from tenants.errors import Invalid
from tenants.models import Tenant

log = logging.getLogger(__name__)

MAX_AHEAD = timedelta(minutes=5)  # an event of the future is somebody's wrong clock
MAX_LATE = timedelta(days=35)
DEAD_AFTER_LEASES = 3
SILENT = "silent"  # why the reaper ended it
_LIMIT = Decimal(10) ** 26  # what numeric(38,12) holds


class Verdict(StrEnum):
    """What a beat tells the holder."""

    CONTINUE = "continue"
    STOP = "stop"  # the tenant's budget says stop: finish cleanly, then close
    FENCED = "fenced"  # this place is closed or somebody else's: nothing was billed; let go


def open_allocation(
    tenant: Tenant,
    *,
    meter: str,
    sku: str,
    units: int,
    subject: str,
    subject_title: str,
    user_label: str,
    fence: str,
    lease_s: int,
    labels: Mapping[str, str] | None = None,
    hold: Hold | None = None,
) -> Allocation:
    """Start billing `units` now, inside the caller's transaction; its beats use up the hold."""
    now = clock.now()
    prices.in_force(meter, sku, now, tenant=tenant)
    return Allocation.objects.create(
        tenant=tenant,
        meter_id=meter,
        sku=sku,
        units=units,
        subject=subject,
        subject_title=subject_title[:200],
        user_label=user_label[:200],
        labels=dict(labels or {}),
        hold=hold,
        fence=fence,
        lease_s=lease_s,
        started_at=now,
        settled_through=now,
        last_beat_at=now,
    )


def beat(allocation_id: int, *, fence: str) -> Verdict:
    """Settle up to now and say whether to go on."""
    with transaction.atomic():
        allocation = _held(allocation_id, fence)
        if allocation is None:
            return Verdict.FENCED
        now = clock.now()
        _settle(allocation, now)
        allocation.last_beat_at = now
        allocation.save(update_fields=["seq", "settled_through", "last_beat_at"])
        stop = _review(allocation) or budgets.must_stop(allocation.tenant)
        return Verdict.STOP if stop else Verdict.CONTINUE


def close_allocation(allocation_id: int, *, fence: str, reason: str) -> None:
    """Settle to now and stop billing. Closed already, or another's fence: nothing happens."""
    with transaction.atomic():
        allocation = _held(allocation_id, fence)
        if allocation is None:
            return
        now = clock.now()
        _settle(allocation, now)
        _end(allocation, now, reason)
        _review(allocation)


def close_at_last_beat(allocation_id: int, *, reason: str) -> None:
    """Close what a dead holder left at its last acknowledged beat, never at now."""
    with transaction.atomic():
        allocation = _held(allocation_id, None)
        if allocation is not None:
            _end(allocation, allocation.last_beat_at, reason)


def reap_allocations() -> int:
    """Close every allocation that was silent for three leases; returns how many."""
    lease = timedelta(seconds=DEAD_AFTER_LEASES)
    silence = ExpressionWrapper(F("lease_s") * lease, output_field=DurationField())
    silent = Allocation.objects.open().filter(last_beat_at__lt=clock.now() - silence).order_by("id")
    reaped = 0
    for allocation_id in list(silent.values_list("pk", flat=True)):
        with transaction.atomic():
            allocation = _held(allocation_id, None)
            # a beat may have come in between; the lock has the last word
            if allocation is None or not is_silent(allocation, clock.now()):
                continue
            _end(allocation, allocation.last_beat_at, SILENT)
        log.warning("allocation reaped", extra={"allocation": allocation.public_id})
        reaped += 1
    return reaped


def is_silent(allocation: Allocation, now: datetime) -> bool:
    """Whether the holder is taken for dead."""
    return now - allocation.last_beat_at > timedelta(seconds=allocation.lease_s * DEAD_AFTER_LEASES)


def record_usage(
    tenant: Tenant,
    *,
    meter: str,
    quantity: Decimal | int,
    source: str,
    key: str,
    subject: str,
    subject_title: str,
    event_time: datetime | None = None,
    sku: str = "standard",
    user_label: str = "",
    dims: Mapping[str, Any] | None = None,
) -> bool:
    """Record usage once: True if new, False if the very same is known; another payload raises Conflict."""
    amount = _quantity(quantity)
    if not key or len(key) > 200:
        raise Invalid.at("/key", "invalid", _("A usage key has 1 to 200 characters."))
    with transaction.atomic():
        locks.pass_with_usage(tenant.pk)
        now = clock.now()
        moment = event_time or now
        if moment.tzinfo is None:
            raise Invalid.at(
                "/event_time", "naive", _("A time needs its offset, such as 2026-11-01T00:00:00Z.")
            )
        if moment > now + MAX_AHEAD:
            raise Invalid.at("/event_time", "future", _("This time lies ahead of the database's clock."))
        if moment < now - MAX_LATE:
            raise Invalid.at("/event_time", "too_late", _("Usage older than 35 days is not taken."))
        event = usage.Event(
            tenant_id=tenant.pk,
            source=source,
            key=key,
            price=prices.in_force(meter, sku, moment, tenant=tenant),
            quantity=amount,
            event_time=moment,
            ended_at=moment,
            subject=subject,
            subject_title=subject_title[:200],
            user_label=user_label[:200],
            dims=dims or {},
        )
        new = usage.store(event, stated_time=event_time)
        if new:
            budgets.review(tenant)
    return new


def _held(allocation_id: int, fence: str | None) -> Allocation | None:
    """The open allocation, locked, if it is this holder's (None: anybody's)."""
    tenant_id = Allocation.objects.filter(pk=allocation_id).values_list("tenant_id", flat=True).first()
    if tenant_id is None:
        return None
    # the gate first, the row second, always: an invoice waits for us or we for it, never both
    locks.pass_with_usage(tenant_id)
    rows = Allocation.objects.select_for_update(of=("self",)).select_related("tenant")
    allocation = rows.get(pk=allocation_id)
    if allocation.ended_at is not None or (fence is not None and allocation.fence != fence):
        return None
    return allocation


def _review(allocation: Allocation) -> bool:
    return budgets.review(allocation.tenant, user_label=allocation.user_label, labels=allocation.labels)


def _settle(allocation: Allocation, now: datetime) -> None:
    """Write [settled_through, now) down, cut where price, month, credit or invoice change."""
    start = allocation.settled_through
    if now <= start:
        return
    tenant = allocation.tenant
    known = prices.between(allocation.meter_id, allocation.sku, start, now, tenant=tenant)
    billed_to = Invoice.objects.filter(tenant=allocation.tenant_id).holding().order_by("-period_end").values_list(
        "period_end", flat=True
    )[:1]  # fmt: skip
    months = accounts.calendar_of(tenant).edges(start, now)
    lots = credits.edges_of(tenant, start, now)
    cost = money.ZERO
    for begin, end in rating.split(start, now, [*rating.cuts(known, start, now), *months, *lots, *billed_to]):
        price = rating.price_at(known, begin)
        if price is None:
            text = _("There is no price for %(meter)s (%(sku)s) at %(at)s.")
            raise Invalid(text % {"meter": allocation.meter_id, "sku": allocation.sku, "at": begin})
        allocation.seq += 1
        UsageInterval.objects.create(
            allocation=allocation, seq=allocation.seq, started_at=begin, ended_at=end, units=allocation.units
        )
        event = usage.Event(
            tenant_id=allocation.tenant_id,
            source="alloc",
            key=f"alloc:{allocation.public_id}:{allocation.seq}",
            price=price,
            quantity=rating.seconds(begin, end) * allocation.units,
            event_time=begin,
            ended_at=end,
            subject=allocation.subject,
            subject_title=allocation.subject_title,
            user_label=allocation.user_label,
            dims={"allocation": allocation.public_id, "labels": allocation.labels},
        )
        usage.store(event, stated_time=begin)
        cost = money.EXACT.add(cost, price.by_unit(event.quantity))
    allocation.settled_through = now
    if allocation.hold_id is not None:
        holds.capture(allocation.hold_id, cost)


def _end(allocation: Allocation, moment: datetime, reason: str) -> None:
    allocation.ended_at = max(moment, allocation.started_at)
    allocation.end_reason = reason[:60]
    allocation.save(update_fields=["seq", "settled_through", "ended_at", "end_reason"])
    if allocation.hold_id is not None:
        holds.release_if_idle(allocation.hold_id, reason=reason)


def _quantity(quantity: Decimal | int) -> Decimal:
    if isinstance(quantity, bool) or not isinstance(quantity, Decimal | int):
        raise Invalid.at("/quantity", "invalid", _("A quantity is a whole or decimal number."))
    amount = Decimal(quantity)
    if not amount.is_finite():
        raise Invalid.at("/quantity", "invalid", _("A quantity is a finite number."))
    if amount < 0:
        raise Invalid.at("/quantity", "negative", _("A quantity is zero or more."))
    if amount >= _LIMIT:
        raise Invalid.at("/quantity", "too_large", _("A quantity is smaller than 10^26."))
    if amount != money.kept(amount):
        raise Invalid.at("/quantity", "too_fine", _("A quantity has at most 12 decimal places."))
    return amount
