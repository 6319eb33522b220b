"""What is held bills by the database's clock: to the second, once, and never beyond the last sign of life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, InternalError, transaction
from django.db.models import Sum

from billing import clock as billing_clock
from billing.models import Allocation, UsageDay, UsageEvent, UsageInterval
from billing.services import metering, prices, reports
from billing.services.metering import Verdict, record_usage
from tenants import outbox
from tenants.errors import Conflict, Invalid
from tests.factories import make_tenant


def used(tenant):
    return UsageEvent.objects.filter(tenant=tenant).aggregate(sum=Sum("quantity"))["sum"] or 0


def requests(tenant, quantity, key="k1", **fields):
    values = {"meter": "endpoint.requests", "source": "gateway", "subject": "ep_1", "subject_title": "digits"}
    return record_usage(tenant, quantity=quantity, key=key, **{**values, **fields})


def test_beats_add_up_to_the_time_held(tenant, clock, hold):
    held = hold(units=2)
    for seconds in (5, 7.25, 3):
        clock.on(seconds=seconds)
        assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE
    clock.on(seconds=0.75)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    assert used(tenant) == Decimal(32)
    assert held.reload().ended_at == clock.now()


def test_the_clock_is_the_databases_and_moves_within_a_transaction(db):
    first = billing_clock.now()
    assert billing_clock.now() > first
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_beat_with_another_fence_bills_nothing_and_is_told_so(tenant, clock, hold):
    held = hold()
    clock.on(seconds=10)
    assert metering.beat(held.pk, fence="stolen") is Verdict.FENCED
    metering.close_allocation(held.pk, fence="stolen", reason="x")
    assert used(tenant) == 0
    assert held.reload().ended_at is None


def test_a_zombie_of_the_first_attempt_does_not_bill_beside_the_second(tenant, clock, hold):
    first = hold(fence="attempt-1")
    clock.on(seconds=10)
    metering.beat(first.pk, fence="attempt-1")
    clock.on(seconds=50)
    metering.close_at_last_beat(first.pk, reason="lease lost")
    second = hold(fence="attempt-2")
    clock.on(seconds=20)
    assert metering.beat(first.pk, fence="attempt-1") is Verdict.FENCED
    assert metering.beat(second.pk, fence="attempt-2") is Verdict.CONTINUE
    assert used(tenant) == Decimal(30)


def test_closing_twice_bills_once(tenant, clock, hold):
    held = hold()
    clock.on(seconds=10)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.on(seconds=10)
    metering.close_allocation(held.pk, fence="f1", reason="again")
    assert used(tenant) == Decimal(10)
    assert held.reload().end_reason == "done"


def test_a_dead_holder_is_billed_to_its_last_beat_and_reaped_once(tenant, clock, hold):
    held = hold(lease_s=15)
    clock.on(seconds=30)
    metering.beat(held.pk, fence="f1")
    last = clock.now()
    clock.on(seconds=40)
    assert metering.reap_allocations() == 0
    clock.on(seconds=6)
    assert metering.reap_allocations() == 1
    assert metering.reap_allocations() == 0
    assert used(tenant) == Decimal(30)
    assert held.reload().ended_at == last


def test_the_reaper_is_a_task(tenant, clock, hold):
    held = hold()
    clock.on(minutes=5)
    outbox.enqueue("billing.reap_allocations")
    from billing.tasks import reap_allocations

    reap_allocations()
    assert held.reload().end_reason == "silent"


def test_a_price_change_cuts_the_time_in_two(tenant, clock, hold, as_staff):
    clock.to("2026-03-10 11:00:00")
    prices.set_price(
        as_staff, meter="train.gpu", unit_price=Decimal(3), valid_from=datetime(2026, 3, 10, 12, tzinfo=UTC)
    )
    clock.to("2026-03-10 11:00:30")
    held = hold(units=8)
    clock.to("2026-03-10 13:00:00")
    metering.close_allocation(held.pk, fence="f1", reason="done")
    quantities = list(UsageEvent.objects.order_by("id").values_list("quantity", "price__unit_price"))
    assert quantities == [(28560, Decimal("2.5")), (28800, Decimal(3))]
    assert round(reports.cost_of(tenant, "job_1"), 2) == Decimal("43.83")


def test_a_month_end_cuts_the_time_in_two(tenant, clock, hold):
    clock.to("2026-03-31 23:50:00")
    held = hold(units=4)
    clock.to("2026-04-01 00:20:00")
    metering.beat(held.pk, fence="f1")
    days = dict(UsageDay.objects.values_list("day", "quantity"))
    assert {str(day): quantity for day, quantity in days.items()} == {"2026-03-31": 2400, "2026-04-01": 4800}


def test_an_event_at_midnight_belongs_to_the_new_month(tenant, clock):
    clock.to("2026-04-01 00:00:00")
    requests(tenant, 1)
    assert str(UsageDay.objects.get().day) == "2026-04-01"


def test_intervals_of_one_allocation_cannot_overlap(clock, hold):
    held = hold()
    begin = clock.now()
    UsageInterval.objects.create(
        allocation=held, seq=1, started_at=begin, ended_at=begin + timedelta(seconds=10), units=1
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        UsageInterval.objects.create(
            allocation=held,
            seq=2,
            started_at=begin + timedelta(seconds=9),
            ended_at=begin + timedelta(seconds=20),
            units=1,
        )


def test_the_same_usage_twice_is_stored_once(tenant, clock):
    assert requests(tenant, 10) is True
    assert requests(tenant, 10, subject_title="renamed") is False
    assert used(tenant) == 10
    assert UsageDay.objects.get().quantity == 10


def test_the_same_key_with_another_payload_is_a_conflict_and_the_first_stays(tenant, clock):
    requests(tenant, 10)
    with pytest.raises(Conflict):
        requests(tenant, 11)
    assert used(tenant) == 10


def test_two_tenants_may_use_the_same_key(tenant, clock):
    other = make_tenant("Other")
    assert requests(tenant, 10) and requests(other, 20)
    assert (used(tenant), used(other)) == (10, 20)


@pytest.mark.parametrize(
    "bad",
    [-1, *map(Decimal, ["-0.1", "NaN", "Infinity", "1e999", "0.0000000000001"]), 10**26, 1.5, "１２", True],
)
def test_a_quantity_that_is_no_honest_number_is_invalid(tenant, clock, bad):
    with pytest.raises(Invalid):
        requests(tenant, bad)
    assert not UsageEvent.objects.exists()


def test_a_huge_quantity_is_priced_exactly(tenant, clock):
    requests(tenant, 10**12)
    assert reports.month_to_date(tenant) == Decimal(20_000_000)


def test_usage_of_the_future_or_of_long_ago_is_refused(tenant, clock):
    with pytest.raises(Invalid):
        requests(tenant, 1, event_time=clock.now() + timedelta(minutes=6))
    with pytest.raises(Invalid):
        requests(tenant, 1, event_time=clock.now() - timedelta(days=36))


def test_what_has_no_price_cannot_be_opened(clock, hold):
    with pytest.raises(Invalid, match="no USD price"):
        hold(sku="gold")
    assert not Allocation.objects.exists()


def test_usage_and_intervals_cannot_be_changed_or_deleted(tenant, clock, hold):
    held = hold()
    clock.on(seconds=5)
    metering.beat(held.pk, fence="f1")
    for rows in (UsageEvent.objects, UsageInterval.objects):
        for change in (
            lambda rows=rows: rows.update(sku="x") if rows is UsageEvent.objects else rows.update(units=9),
            lambda rows=rows: rows.all().delete(),
        ):
            with pytest.raises((IntegrityError, InternalError)), transaction.atomic():
                change()


def test_a_live_cost_counts_what_is_not_settled_yet(tenant, clock, hold):
    held = hold(units=2)
    clock.on(seconds=10)
    metering.beat(held.pk, fence="f1")
    clock.on(seconds=8)
    assert reports.cost_of(tenant, "job_1") == Decimal("2.50") * 36 / 3600
    assert reports.month_to_date(tenant) == Decimal("2.50") * 36 / 3600
    clock.on(days=1)  # nobody beats: three leases at most
    assert round(reports.cost_of(tenant, "job_1") * 3600, 9) == Decimal("2.50") * (20 + 2 * 45)
