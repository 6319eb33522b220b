"""Placing a job sets money aside in the same transaction, or does not place it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.models import Hold
from billing.services import accounts, credits, holds
from jobs.services import schedule
from jobs.services.jobs import cancel_job
from jobs.states import JobStatus
from tenants.actor import SYSTEM
from tests.jobs.factories_jobs import make_job

pytestmark = pytest.mark.django_db


def test_a_placed_job_holds_the_cost_of_its_first_minutes_until_it_ends(tenant, as_ana):
    job = make_job(as_ana)
    schedule.schedule_once()
    assert job.reload().status == JobStatus.STARTING
    held = Hold.objects.get()
    attempt = job.attempts.get()
    assert held.source == attempt.public_id
    assert 0 < held.amount <= job.estimate_high
    schedule.release(attempt, exit_code=0, reason="", at_last_beat=False)
    assert holds.held_of(tenant) == 0


def test_a_prepaid_job_waits_for_credit_and_says_so(tenant, as_ana):
    accounts.change_account(SYSTEM, tenant, mode="prepaid")
    credits.grant_credit(SYSTEM, tenant, amount=Decimal("0.01"), kind="promo", key="k")
    job = make_job(as_ana)
    schedule.schedule_once()
    waiting = job.reload()
    assert waiting.status == JobStatus.QUEUED and "credit" in waiting.waiting_for
    assert not Hold.objects.exists() and not job.attempts.exists()
    credits.grant_credit(SYSTEM, tenant, amount=Decimal(5), kind="paid", key="k2")
    schedule.schedule_once()
    assert job.reload().status == JobStatus.STARTING
    cancel_job(as_ana, job.reload())
