"""The scheduler's time is the metered time, to a beat: a gap or a surplus is found, told, and parks the account."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from billing import clock as billing_clock
from billing import seed, timesheets
from billing.models import Allocation, BillingAccount, UsageEvent, UsageHour, UsageInterval
from billing.services import accounts, metering, reconcile
from jobs import compute
from jobs.models import Attempt, Endpoint, GpuLease, Replica
from jobs.services.dispatch import sweep_attempts, take
from jobs.services.schedule import release, schedule_once
from jobs.services.timesheets import KEEPER_GONE
from jobs.states import Reason, ReplicaStatus
from tenants import outbox
from tenants.actor import SYSTEM
from tenants.lifecycle import move
from tests.billing.conftest import TestClock
from tests.factories import make_user
from tests.jobs.dispatch_house import good_run, run_with
from tests.jobs.factories_endpoints import make_endpoint
from tests.jobs.factories_jobs import FakeCompute, make_job, make_version


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TestClock:
    """The database's clock; attempts that end are set to it by hand, for their own clock is the real one."""
    set_clock = TestClock(datetime.now(UTC))
    monkeypatch.setattr(billing_clock, "now", set_clock.now)
    return set_clock


@pytest.fixture
def machine() -> Iterator[FakeCompute]:
    with compute.use(FakeCompute(processes=4, gpus=2)) as fake:
        yield fake


@pytest.fixture
def attempt(as_ben, clock: TestClock, machine: FakeCompute) -> Attempt:
    """Two processes on two GPUs, placed now."""
    job = make_job(as_ben, make_version(as_ben.tenant), resources={"processes": 2, "gpus": 2})
    assert schedule_once() == 1
    return Attempt.objects.select_related("job").get(job=job)


def beat(attempt: Attempt, clock: TestClock, *, minutes: float) -> None:
    clock.on(minutes=minutes)
    for allocation in attempt.allocations:
        metering.beat(allocation, fence=attempt.fence)
    Attempt.objects.filter(pk=attempt.pk).update(lease_until=clock.now() + timedelta(seconds=15))


def end(attempt: Attempt, clock: TestClock, reason: Reason = Reason.NONE) -> None:
    assert release(attempt, exit_code=0, reason=reason, at_last_beat=False)
    Attempt.objects.filter(pk=attempt.pk).update(ended_at=clock.now())


def test_books_agree_while_a_job_runs_and_after_it_ended(attempt, tenant, clock):
    assert reconcile.check(tenant) == []
    for minutes in (5, 20, 0.5):
        beat(attempt, clock, minutes=minutes)
        clock.on(seconds=4)  # less than a beat that is not settled yet
        assert reconcile.check(tenant, by_hour=True) == []
    clock.on(seconds=3)
    end(attempt, clock)
    clock.on(days=1)
    assert reconcile.check(tenant, by_hour=True) == []


def test_time_that_was_held_and_not_metered_is_found(attempt, tenant, clock):
    """The bill was ended after ten minutes and the job went on for fifty more."""
    beat(attempt, clock, minutes=10)
    for allocation in attempt.allocations:
        metering.close_allocation(allocation, fence=attempt.fence, reason="lost")
    clock.on(minutes=50)
    running = reconcile.check(tenant)
    end(attempt, clock)
    wrong = reconcile.check(tenant)
    name = f"{attempt.job.public_id} attempt 1"
    assert running == wrong == [
        f"{name}: 1200 s of train.process are metered, and its scheduler held 7200 s",
        f"{name}: 1200 s of train.gpu are metered, and its scheduler held 7200 s",
    ]  # fmt: skip


def test_time_that_was_metered_and_not_held_is_found(attempt, tenant, clock):
    clock.on(minutes=60)
    end(attempt, clock)
    assert reconcile.check(tenant) == []
    Attempt.objects.filter(pk=attempt.pk).update(ended_at=clock.now() - timedelta(minutes=50))
    assert len(reconcile.check(tenant)) == 2
    Attempt.objects.filter(pk=attempt.pk).update(ended_at=clock.now() - timedelta(seconds=4))
    assert reconcile.check(tenant) == []  # within a beat


def test_one_interval_that_was_never_written_is_found(attempt, tenant, clock):
    """What only the sums of an allocation know is also beside the scheduler's time."""
    beat(attempt, clock, minutes=10)
    clock.on(minutes=10)
    # the mark moves and nothing is written down
    Allocation.objects.filter(pk=attempt.allocations[0]).update(settled_through=clock.now())
    beat(attempt, clock, minutes=10)
    end(attempt, clock)
    wrong = reconcile.check(tenant)
    assert f"{attempt.job.public_id} attempt 1: 2400 s of train.process are metered" in " ".join(wrong)


def test_more_gpus_on_the_bill_than_were_held_are_found(attempt, tenant, clock):
    clock.on(minutes=60)
    end(attempt, clock)
    GpuLease.objects.filter(attempt=attempt, gpu=0).delete()
    (wrong,) = reconcile.check(tenant)
    assert "7200 s of train.gpu are metered, and its scheduler held 3600 s" in wrong
    GpuLease.objects.all().delete()
    (wrong,) = reconcile.check(tenant)
    assert wrong.endswith("held 0 s")


def test_a_bill_that_no_attempt_knows_is_found(attempt, tenant, clock):
    end(attempt, clock)
    allocation = metering.open_allocation(
        tenant, meter="train.process", sku="standard", units=1, subject=attempt.job.public_id,
        subject_title="twice", user_label="", fence="f", lease_s=15,
    )  # fmt: skip
    assert reconcile.check(tenant) == []
    clock.on(minutes=5)
    metering.close_allocation(allocation.pk, fence="f", reason="done")
    (wrong,) = reconcile.check(tenant)
    assert allocation.public_id in wrong and wrong.endswith("its scheduler held nothing")


def test_a_place_that_nobody_bills_is_found(attempt, tenant, clock):
    beat(attempt, clock, minutes=10)
    end(attempt, clock)
    Attempt.objects.filter(pk=attempt.pk).update(allocations=[])
    wrong = reconcile.check(tenant)
    assert sum("0 s of train" in one for one in wrong) == 2
    assert sum("held nothing" in one for one in wrong) == 2


def test_a_lost_worker_is_held_against_its_last_sign_of_life(attempt, tenant, clock, machine):
    taken = take(attempt.pk)
    assert taken is not None
    beat(attempt, clock, minutes=10)
    last = clock.now()
    clock.on(minutes=30)
    # its lease is over by the real clock, too
    lost = Attempt.objects.filter(pk=attempt.pk)
    lost.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert sweep_attempts() == 1
    lost.update(lease_until=last + timedelta(seconds=15), ended_at=clock.now())
    assert attempt.reload().reason == Reason.WORKER_LOST
    assert reconcile.check(tenant) == []
    lost.update(lease_until=last - timedelta(minutes=5))  # billed beyond its last sign of life
    assert len(reconcile.check(tenant)) == 2
    lost.update(lease_until=last + timedelta(minutes=5))
    assert len(reconcile.check(tenant)) == 2


def test_a_worker_that_never_took_its_place_owes_nothing_and_is_no_mismatch(attempt, tenant, clock, machine):
    Attempt.objects.filter(pk=attempt.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert sweep_attempts() == 1
    clock.on(hours=1)
    placed = attempt.created_at
    Attempt.objects.filter(pk=attempt.pk).update(
        lease_until=placed + timedelta(seconds=27),
        taken_at=placed + timedelta(seconds=12),
        ended_at=clock.now(),
    )
    assert not UsageEvent.objects.exists()
    assert reconcile.check(tenant) == []


def test_a_silent_holder_that_was_reaped_is_billed_to_its_last_beat_by_rule(attempt, tenant, clock):
    beat(attempt, clock, minutes=10)
    clock.on(minutes=30)
    assert reconcile.check(tenant) == []  # silent for too long to be taken for alive
    assert metering.reap_allocations() == 2
    assert reconcile.check(tenant) == []


def test_a_mismatch_tells_staff_and_parks_the_account(
    attempt, tenant, clock, mailoutbox, django_capture_on_commit_callbacks
):
    staff = make_user("staff@example.org", is_staff=True)
    beat(attempt, clock, minutes=10)
    end(attempt, clock)
    Attempt.objects.filter(pk=attempt.pk).update(created_at=attempt.created_at - timedelta(hours=1))
    with django_capture_on_commit_callbacks(execute=True):
        found = reconcile.check_all()
        outbox.drain()
    assert list(found) == [tenant.public_id]
    account = BillingAccount.objects.get(tenant=tenant)
    assert account.is_parked and "attempt 1" in account.parked_reason
    assert [mail.to for mail in mailoutbox] == [[staff.email]]
    # what staff have judged stays as it is and is not held against the account for ever
    accounts.unpark(SYSTEM, tenant, note="The clock of the machine was set; nothing is owed.")
    assert reconcile.check(tenant) == []


def test_an_hour_that_is_not_what_its_events_say_is_found_at_night(attempt, tenant, clock):
    beat(attempt, clock, minutes=10)
    end(attempt, clock)
    with connection.cursor() as cursor:
        cursor.execute("update billing_usagehour set quantity = quantity + 1")
    assert UsageHour.objects.exists() and UsageInterval.objects.exists()
    assert reconcile.check(tenant) == []  # days still agree
    assert all(", hour " in one for one in reconcile.check(tenant, by_hour=True))
    assert reconcile.check_all() != {}


def replica(actor) -> Replica:
    """A worker that is ready and billed since now."""
    seed.seed()
    endpoint = Endpoint.objects.first() or make_endpoint(actor)
    made = Replica.objects.create(tenant=actor.tenant, revision=endpoint.revisions.get(), fence="f")
    held = metering.open_allocation(
        actor.tenant, meter="endpoint.replica", sku="standard", units=1, subject=endpoint.public_id,
        subject_title="digits", user_label="", fence="f", lease_s=15,
    )  # fmt: skip
    move(made, to=ReplicaStatus.READY, by=SYSTEM, allocations=[held.pk])
    return made


def test_a_replica_is_metered_from_ready_to_gone(as_ana, tenant, clock):
    one = replica(as_ana)
    assert reconcile.check(tenant) == []
    metering.close_allocation(one.allocations[0], fence="f", reason="retired")
    move(one, to=ReplicaStatus.STOPPED, by=SYSTEM, reason="retired")
    assert reconcile.check(tenant) == []
    two = replica(as_ana)
    clock.on(hours=1)  # an hour that the audit log knows nothing of
    metering.close_allocation(two.allocations[0], fence="f", reason="retired")
    move(two, to=ReplicaStatus.STOPPED, by=SYSTEM, reason="retired")
    (wrong,) = reconcile.check(tenant)
    assert two.public_id in wrong and "3600 s of endpoint.replica are metered" in wrong


def test_a_replica_whose_bill_stands_still_is_found_unless_its_keeper_died(as_ana, tenant, clock):
    one = replica(as_ana)
    metering.close_allocation(one.allocations[0], fence="f", reason="gone")
    clock.on(hours=1)
    (wrong,) = reconcile.check(tenant)
    assert one.public_id in wrong and "0 s of endpoint.replica are metered" in wrong
    move(one, to=ReplicaStatus.STOPPED, by=SYSTEM, reason=KEEPER_GONE)
    assert reconcile.check(tenant) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_a_real_run_leaves_books_that_agree(as_ben, flowers):
    _job, attempt, _fake = run_with(good_run, as_ben, flowers)
    assert attempt.ended_at is not None
    assert reconcile.check_all([as_ben.tenant]) == {}


def test_billing_asks_whoever_registered_and_knows_no_jobs(tenant, clock, monkeypatch):
    monkeypatch.setattr(timesheets, "_readers", {})
    assert list(timesheets.of(tenant)) == []
    held = metering.open_allocation(
        tenant, meter="train.gpu", sku="standard", units=3, subject="farm_1", subject_title="x", user_label="",
        fence="f", lease_s=15,
    )  # fmt: skip
    shift = timesheets.Shift(
        name="farm 1", meters=frozenset({"train.gpu"}), units=3, allocations=frozenset({held.pk}),
        started_at=clock.now(),
    )  # fmt: skip
    timesheets.register("farm", lambda _tenant: timesheets.Timesheet(shifts=(shift,), owned=set))
    clock.on(minutes=1)
    metering.close_allocation(held.pk, fence="f", reason="done")
    clock.on(minutes=1)
    assert reconcile.check(tenant) == ["farm 1: 180 s of train.gpu are metered, and its scheduler held 360 s"]
