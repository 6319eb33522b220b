"""Worked examples of budgets by person and label, beats that come twice, and workers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from decimal import Decimal

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from billing import rating
from billing.errors import BudgetReached
from billing.models import BudgetAlert, Invoice, UsageDay, UsageEvent, UsageInterval
from billing.services import budgets, metering, reconcile
from billing.services.metering import Verdict
from tenants.errors import Invalid
from tests.factories import make_tenant


def test_a_budget_in_mode_stop_lets_at_most_one_beat_over_and_tells_once(
    tenant, clock, as_ana, hold, mailoutbox, django_capture_on_commit_callbacks
):
    """2.50 an hour, a beat a minute, a budget of 1.00: stopped by the first beat at or beyond it."""
    budgets.set_budget(as_ana, amount=Decimal("1.00"), mode="stop")
    held = hold(lease_s=60)
    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(60):
            clock.on(minutes=1)
            if metering.beat(held.pk, fence="f1") is Verdict.STOP:
                break
        metering.close_allocation(held.pk, fence="f1", reason="budget")
    spent = budgets.standing(tenant).spent
    assert Decimal("1.00") <= spent < Decimal("1.00") + Decimal("2.50") / 60
    assert sorted(BudgetAlert.objects.values_list("percent", flat=True)) == [50, 80, 100]
    assert len(mailoutbox) == 3
    with django_capture_on_commit_callbacks(execute=True):
        assert budgets.review(tenant)  # beyond the line still: nobody is told again
    assert len(mailoutbox) == 3


def test_a_budget_of_a_person_stops_their_work_and_nobody_elses(tenant, clock, as_ana, ben, hold):
    budgets.set_budget(as_ana, amount=Decimal(1), mode="stop", scope="user", value="BEN@example.org")
    bens = hold(user_label=ben.email, subject="job_b", lease_s=3600)
    anas = hold(user_label="ana@example.org", lease_s=3600)
    clock.on(minutes=30)
    assert metering.beat(anas.pk, fence="f1") is Verdict.CONTINUE
    assert metering.beat(bens.pk, fence="f1") is Verdict.STOP
    assert budgets.should_stop(tenant, subject="job_b", max_spend=None)
    assert not budgets.should_stop(tenant, subject="job_1", max_spend=None)
    with pytest.raises(BudgetReached, match=r"ben@example\.org"):
        budgets.ensure_can_spend(tenant, high_estimate=Decimal(0), user_label=ben.email)
    budgets.ensure_can_spend(tenant, high_estimate=Decimal(0), user_label="ana@example.org")


def test_a_budget_of_a_label_counts_only_work_with_it(tenant, clock, as_ana, hold):
    budgets.set_budget(as_ana, amount=Decimal(2), mode="block_new", scope="label", value="team=vision")
    one = hold(labels={"team": "vision"}, lease_s=3600)
    two = hold(labels={"team": "text"}, subject="job_2", lease_s=3600)
    clock.on(minutes=48)
    for held in (one, two):
        metering.beat(held.pk, fence="f1")
    (found,) = budgets.standings(tenant)
    assert (found.spent, found.percent) == (2, 100)
    with pytest.raises(BudgetReached, match="team=vision"):
        budgets.ensure_can_spend(tenant, high_estimate=Decimal(0), labels={"team": "vision"})
    budgets.ensure_can_spend(tenant, high_estimate=Decimal(0), labels={"team": "text"})


def test_work_that_begins_together_counts_on_the_budget_of_its_label(tenant, clock, as_ana, hold):
    """Three jobs of 9.00 under a line of 10.00: the second one finds 9.00 set aside, the first one's own."""
    budgets.set_budget(as_ana, amount=Decimal(10), mode="block_new", scope="label", value="team=vision")
    vision, other = {"team": "vision"}, {"team": "text"}

    def place(source: str, labels: dict[str, str]) -> None:
        nine = Decimal(9)
        placed = budgets.reserve(tenant, source=source, amount=nine, high_estimate=nine, labels=labels)
        for meter in ("train.process", "train.gpu"):  # one hold for both: it is counted once
            hold(meter=meter, subject=source, labels=labels, hold=placed)

    place("job_0", other)
    place("job_1", vision)
    with pytest.raises(BudgetReached, match="team=vision"):
        place("job_2", vision)
    place("job_3", other)


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        ("user", "cy@example.org"),
        ("user", ""),
        ("label", "team"),
        ("label", "=x"),
        ("tenant", "x"),
        ("x", ""),
    ],
)
def test_a_budget_names_somebody_of_the_tenant_or_a_label(as_ana, scope, value):
    with pytest.raises(Invalid):
        budgets.set_budget(as_ana, amount=Decimal(1), mode="notify", scope=scope, value=value)


def test_many_beats_bill_what_one_long_interval_would(tenant, clock, hold):
    many, one = hold(subject="many"), hold(subject="one")
    for seconds in (1, 59, 3600, 7, 86_400):
        clock.on(seconds=seconds, microseconds=333_333)
        metering.beat(many.pk, fence="f1")
    metering.beat(one.pk, fence="f1")

    def billed(subject):
        return sum(UsageEvent.objects.filter(subject=subject).values_list("quantity", flat=True))

    assert billed("many") == billed("one") == Decimal("90068.666665")


_DIES = """
import os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "console.settings"
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from billing.services import metering, usage
real = usage.store
def die(*args, **options):
    real(*args, **options)
    print("stored", flush=True)
    os.kill(os.getpid(), 9)
usage.store = die
metering.beat(int(sys.argv[2]), fence="f")
"""


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_in_the_middle_of_a_beat_leaves_the_beat_whole_or_not_at_all():
    """kill -9 after the event is written and before the commit: nothing of it stays, the next beat bills it once."""
    tenant = make_tenant("Lab")
    with transaction.atomic():
        held = metering.open_allocation(
            tenant, meter="train.gpu", sku="standard", units=2, subject="job_1", subject_title="t",
            user_label="", fence="f", lease_s=15,
        )  # fmt: skip
    metering.beat(held.pk, fence="f")
    before = held.reload().settled_through
    died = subprocess.run(
        [sys.executable, "-c", _DIES, connection.settings_dict["NAME"], str(held.pk)],
        capture_output=True, text=True, timeout=180, check=False, cwd=settings.BASE_DIR, env=dict(os.environ),
    )  # fmt: skip
    assert died.stdout == "stored\n" and died.returncode == -signal.SIGKILL, died.stderr
    assert held.reload().settled_through == before
    assert UsageEvent.objects.count() == UsageInterval.objects.count() == 1
    assert metering.beat(held.pk, fence="f") is Verdict.CONTINUE
    held = held.reload()
    billed = sum(UsageEvent.objects.values_list("quantity", flat=True))
    assert billed == rating.seconds(held.started_at, held.settled_through) * 2
    assert reconcile.check(tenant) == []


def test_a_dead_worker_is_billed_to_its_last_beat_and_never_to_the_reaper(tenant, clock, hold):
    """Killed 40 s after a beat: closed once, at the beat."""
    held = hold(lease_s=30)
    clock.on(seconds=60)
    metering.beat(held.pk, fence="f1")
    clock.on(seconds=40)
    assert metering.reap_allocations() == 0
    clock.on(seconds=51)
    assert metering.reap_allocations() == 1
    assert metering.reap_allocations() == 0
    assert sum(UsageEvent.objects.values_list("quantity", flat=True)) == 60
    assert metering.beat(held.pk, fence="f1") is Verdict.FENCED


def test_months_are_closed_and_books_checked_by_hand(tenant, clock, capsys):
    metering.record_usage(
        tenant, meter="endpoint.requests", quantity=100_000, source="t", key="a", subject="ep_1",
        subject_title="digits",
    )  # fmt: skip
    clock.to("2026-04-02 00:00:00")
    call_command("close_months", tenant=tenant.slug, month="2026-03")
    assert "1 invoiced" in capsys.readouterr().out
    assert Invoice.objects.get().total == 2
    call_command("check_books")
    assert "All books agree" in capsys.readouterr().out
    UsageDay.objects.update(quantity=1)
    with pytest.raises(CommandError, match="1 tenants disagree"):
        call_command("check_books", tenant=tenant.slug)
    for wrong in ({"tenant": "nope"}, {"month": "March"}):
        with pytest.raises(CommandError):
            call_command("close_months", **wrong)
