"""A budget says no to new work, and stop to running work, and tells people once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.core import mail

from billing.errors import BudgetReached
from billing.models import Budget, BudgetAlert
from billing.services import budgets, metering
from billing.services.metering import Verdict
from tenants.errors import Forbidden, Invalid
from tests.factories import make_user


@pytest.mark.parametrize(("mode", "blocked"), [("notify", False), ("block_new", True), ("stop", True)])
def test_new_work_is_refused_where_it_may_pass_a_blocking_budget(tenant, clock, as_ana, mode, blocked):
    budgets.set_budget(as_ana, amount=Decimal(10), mode=mode)
    budgets.ensure_can_spend(tenant, high_estimate=Decimal(10))
    if not blocked:
        budgets.ensure_can_spend(tenant, high_estimate=Decimal(11))
        return
    with pytest.raises(BudgetReached) as refused:
        budgets.ensure_can_spend(tenant, high_estimate=Decimal("10.01"))
    assert refused.value.status == 409
    assert "10.00 USD" in refused.value.detail and "Usage page" in refused.value.detail


def test_without_a_budget_everything_may_be_spent(tenant, clock):
    budgets.ensure_can_spend(tenant, high_estimate=Decimal(10) ** 9)
    assert budgets.standing(tenant) is None


def test_a_beat_says_stop_when_the_budget_is_crossed(tenant, clock, hold, as_ana):
    budgets.set_budget(as_ana, amount=Decimal("2.50"), mode="stop")
    held = hold()
    clock.on(minutes=59)
    assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE
    clock.on(minutes=1)
    assert metering.beat(held.pk, fence="f1") is Verdict.STOP


def test_a_budget_that_only_blocks_lets_running_work_finish(tenant, clock, hold, as_ana):
    budgets.set_budget(as_ana, amount=Decimal("0.01"), mode="block_new")
    held = hold()
    clock.on(minutes=59)
    assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE


def test_each_threshold_is_told_once_to_owners_and_billing_people(
    tenant, clock, hold, as_ana, ben, django_capture_on_commit_callbacks
):
    make_user("dee@example.org", tenant=tenant, role="billing")
    budgets.set_budget(as_ana, amount=Decimal("2.50"), mode="notify")
    held = hold()
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(10):
            clock.on(minutes=6)
            metering.beat(held.pk, fence="f1")
            metering.beat(held.pk, fence="f1")
    assert sorted(BudgetAlert.objects.values_list("percent", flat=True)) == [50, 80, 100]
    assert {message.to[0] for message in mail.outbox} == {"ana@example.org", "dee@example.org"}
    assert len(mail.outbox) == 6


def test_a_new_month_starts_at_zero(tenant, clock, hold, as_ana):
    budgets.set_budget(as_ana, amount=Decimal(1), mode="stop")
    held = hold()
    clock.on(hours=2)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    with pytest.raises(BudgetReached):
        budgets.ensure_can_spend(tenant, high_estimate=Decimal(0))
    clock.to("2026-04-01 00:00:00")
    budgets.ensure_can_spend(tenant, high_estimate=Decimal(1))


def test_a_subject_stops_at_its_own_limit_or_the_tenants(tenant, clock, hold, as_ana):
    hold()
    clock.on(seconds=40)
    limit = Decimal("2.50") * 40 / 3600
    assert not budgets.should_stop(tenant, subject="job_1", max_spend=limit + Decimal("0.001"))
    assert budgets.should_stop(tenant, subject="job_1", max_spend=Decimal("0.02"))
    assert not budgets.should_stop(tenant, subject="job_1", max_spend=None)
    budgets.set_budget(as_ana, amount=Decimal("0.02"), mode="stop")
    assert budgets.should_stop(tenant, subject="job_1", max_spend=None)


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", "1.234", "1e12"])
def test_a_budget_is_an_honest_amount(as_ana, amount):
    with pytest.raises(Invalid):
        budgets.set_budget(as_ana, amount=Decimal(amount), mode="notify")
    assert not Budget.objects.exists()


def test_members_may_see_but_not_set_a_budget(as_ana, as_ben, clock):
    with pytest.raises(Forbidden):
        budgets.set_budget(as_ben, amount=Decimal(1), mode="notify")
    budgets.set_budget(as_ana, amount=Decimal(1), mode="notify")
    with pytest.raises(Forbidden):
        budgets.remove_budget(as_ben)
    budgets.remove_budget(as_ana)
    assert not Budget.objects.exists()
