"""Submitting, estimating and cancelling: who may, what it costs, what stays behind."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from billing import seed
from billing.errors import BudgetReached
from billing.models import Allocation, Budget, BudgetMode
from jobs import compute
from jobs.models import Attempt, Job
from jobs.services.jobs import cancel_job, costs_of, estimate_job, submit_job
from jobs.services.schedule import schedule_once
from jobs.specs import JobSpec
from jobs.states import JobStatus, Reason
from tenants import outbox
from tenants.errors import Forbidden, Hidden, IllegalMove, Invalid
from tenants.http import actor_from_user
from tenants.models import AuditEntry
from tests import factories
from tests.jobs.factories_jobs import FakeCompute, make_job, make_version, spec_data


@pytest.fixture(autouse=True)
def machine():
    with compute.use(FakeCompute(processes=2)) as fake:
        yield fake


@pytest.fixture(autouse=True)
def price_list(db):
    seed.seed()


@pytest.fixture
def spec(as_ben):
    return JobSpec.parse(as_ben, spec_data(make_version(as_ben.tenant), resources={"processes": 2}))


def test_a_submitted_job_waits_in_line_and_wakes_the_scheduler(
    as_ben, spec, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        job = submit_job(as_ben, spec)
    assert job.status == JobStatus.QUEUED
    assert ("jobs.schedule_jobs", ()) in outbox.queued
    assert [event.data["status"] for event in job.events.all()] == ["queued"]
    assert AuditEntry.objects.filter(action="job.submitted", target_id=job.public_id).exists()


def test_a_viewer_may_not_submit(tenant, spec):
    viewer = actor_from_user(factories.make_user("vic@example.org", tenant=tenant, role="viewer"))
    with pytest.raises(Forbidden):
        submit_job(viewer, spec)
    assert not Job.objects.exists()


def test_the_high_estimate_is_the_time_limit_at_todays_price(as_ben, spec):
    estimate = estimate_job(as_ben, spec)
    assert estimate.high == Decimal("0.06") * 2  # two processes for an hour
    assert 0 < estimate.low < estimate.high
    assert [line.meter for line in estimate.lines] == ["train.process"]


def test_a_spend_limit_caps_the_estimate(as_ben):
    data = spec_data(make_version(as_ben.tenant), limits={"max_time_s": 36000, "max_spend": "0.01"})
    assert estimate_job(as_ben, JobSpec.parse(as_ben, data)).high == Decimal("0.01")


def test_a_spend_limit_below_what_the_job_costs_at_least_is_refused_with_the_figure(as_ben, api_of, ben):
    version = make_version(as_ben.tenant)
    data = spec_data(version, limits={"max_spend": "0.0001"})
    with pytest.raises(Invalid) as refusal:
        submit_job(as_ben, JobSpec.parse(as_ben, data))
    fault = refusal.value.faults[0]
    assert (fault.pointer, fault.code) == ("/limits/max_spend", "below_estimate")
    assert not Job.objects.exists()
    least = re.search(r"at least about ([\d.]+) USD", fault.detail)[1]
    for path in ("/api/v1/jobs", "/api/v1/jobs/estimate"):
        answer = api_of(ben).post(path, data)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/limits/max_spend"
        assert least in answer.json()["errors"][0]["detail"]
    enough = spec_data(version, limits={"max_spend": least})
    assert api_of(ben).post("/api/v1/jobs", enough).status_code == 201  # what is named is taken


def test_a_job_that_may_break_the_budget_is_refused_whole(as_ben, spec):
    Budget.objects.create(tenant=as_ben.tenant, amount=Decimal("0.05"), mode=BudgetMode.BLOCK_NEW)
    with pytest.raises(BudgetReached):
        submit_job(as_ben, spec)
    assert not Job.objects.exists()


def test_the_budget_is_asked_again_when_a_place_is_free(as_ben, spec):
    job = submit_job(as_ben, spec)
    Budget.objects.create(tenant=as_ben.tenant, amount=Decimal("0.05"), mode=BudgetMode.BLOCK_NEW)
    assert schedule_once() == 0
    assert "budget" in job.reload().waiting_for
    assert job.reload().status == JobStatus.QUEUED


def test_a_place_is_attempt_lease_bill_and_status_together(as_ben, spec, machine):
    job = submit_job(as_ben, spec)
    assert schedule_once() == 1
    attempt = Attempt.objects.get(job=job)
    assert job.reload().status == JobStatus.STARTING
    assert attempt.fence and attempt.taken_at is None and attempt.ended_at is None
    allocation = Allocation.objects.get(pk=attempt.allocations[0])
    assert (allocation.meter_id, allocation.units, allocation.subject) == ("train.process", 2, job.public_id)
    assert allocation.fence == attempt.fence


def test_gpus_are_leased_and_billed_beside_the_processes(as_ben, spec):
    with compute.use(FakeCompute(processes=4, gpus=3)):
        job = make_job(as_ben, resources={"gpus": 2})
        schedule_once()
    attempt = Attempt.objects.get(job=job)
    assert sorted(attempt.gpu_leases.values_list("gpu", flat=True)) == [0, 1]
    meters = Allocation.objects.filter(pk__in=attempt.allocations).values_list("meter_id", "units")
    assert sorted(meters) == [("train.gpu", 2), ("train.process", 2)]


def test_who_waits_is_told_for_what(as_ben, spec):
    first, second = submit_job(as_ben, spec), submit_job(as_ben, spec)
    schedule_once()
    assert first.reload().status == JobStatus.STARTING
    assert second.reload().waiting_for == "waiting for 2 processes; 0 of 2 are free"


def test_a_waiting_job_is_cancelled_at_once_and_costs_nothing(as_ben, spec):
    job = submit_job(as_ben, spec)
    cancelled = cancel_job(as_ben, job)
    assert (cancelled.status, cancelled.reason) == (JobStatus.CANCELLED, Reason.BY_USER)
    assert cancelled.reload().finished_at is not None
    assert schedule_once() == 0
    assert not Allocation.objects.exists()
    assert costs_of([job]) == {job.public_id: 0}


def test_a_placed_job_is_asked_to_stop_and_asking_twice_is_asking_once(as_ben, spec):
    job = submit_job(as_ben, spec)
    schedule_once()
    cancel_job(as_ben, job)
    cancel_job(as_ben, job)
    job = job.reload()
    assert (job.status, job.stop_reason) == (JobStatus.STOPPING, Reason.BY_USER)
    assert [event.data["status"] for event in job.events.all()] == ["queued", "starting", "stopping"]


def test_what_has_ended_cannot_be_stopped(as_ben, spec):
    job = cancel_job(as_ben, submit_job(as_ben, spec))
    with pytest.raises(IllegalMove):
        cancel_job(as_ben, job)


def test_a_stranger_cannot_tell_that_a_job_exists(as_ben, as_cy, spec):
    job = submit_job(as_ben, spec)
    with pytest.raises(Hidden):
        cancel_job(as_cy, job)


def test_a_viewer_sees_a_job_and_may_not_stop_it(as_ben, tenant, spec):
    job = submit_job(as_ben, spec)
    viewer = actor_from_user(factories.make_user("vic@example.org", tenant=tenant, role="viewer"))
    with pytest.raises(Forbidden):
        cancel_job(viewer, job)


def test_events_are_numbered_without_gaps(as_ben, spec):
    job = submit_job(as_ben, spec)
    schedule_once()
    cancel_job(as_ben, job)
    assert list(job.events.values_list("seq", flat=True)) == [1, 2, 3]
    assert job.reload().last_seq == 3
