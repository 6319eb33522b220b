"""Worked examples of credit and holds: nothing is spent twice, nothing is lost at an expiry."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, connection, transaction

from billing.burning import Lot, Payable, burn
from billing.errors import BudgetReached, NotEnoughCredit
from billing.models import AccountKind, CreditGrant, CreditUse, Hold
from billing.months import Month
from billing.services import (
    accounts,
    budgets,
    closing,
    credits,
    holds,
    invoices,
    ledger,
    metering,
    reconcile,
)
from billing.services.metering import Verdict
from tenants.errors import Conflict, Forbidden, Invalid
from tenants.http import actor_from_user
from tests.billing.test_invoices import together
from tests.factories import make_tenant, make_user

MARCH, APRIL = Month(2026, 3), Month(2026, 4)


def grant(as_staff, tenant, amount, **fields):
    values = {"kind": "paid", "key": f"k{CreditGrant.objects.count()}", **fields}
    return credits.grant_credit(as_staff, tenant, amount=Decimal(amount), **values)


def use(tenant, thousands, key, **fields):
    """Requests at 0.02 a thousand."""
    values = {"meter": "endpoint.requests", "source": "t", "subject": "ep_1", "subject_title": "digits"}
    return metering.record_usage(tenant, quantity=thousands * 1000, key=key, **{**values, **fields})


def left(*grants):
    return [one.reload().remaining for one in grants]


@pytest.fixture
def prepaid(tenant, clock, as_staff):
    accounts.change_account(as_staff, tenant, mode="prepaid")
    return tenant


def test_credit_burns_by_priority_then_expiry_then_gift_then_age(tenant, clock, as_staff):
    old = grant(as_staff, tenant, 1)
    clock.on(seconds=1)
    soon = grant(as_staff, tenant, 1, expires_at=MARCH.end)
    sooner = grant(as_staff, tenant, 1, expires_at=MARCH.end - timedelta(days=1))
    present = grant(as_staff, tenant, 1, kind="promo", expires_at=MARCH.end)
    first = grant(as_staff, tenant, 1, priority=1)
    lots = sorted(credits.lots_of(tenant, "USD"), key=lambda lot: lot.order)
    assert [lot.id for lot in lots] == [one.pk for one in (first, sooner, present, soon, old)]
    clock.on(seconds=1)
    use(tenant, 175, "r")  # 3.50
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert (invoice.credit_total, invoice.due, invoice.status) == (Decimal("3.5"), 0, "paid")
    assert left(first, sooner, present, soon, old) == [0, 0, 0, Decimal("0.5"), 1]
    assert ledger.balance(tenant, AccountKind.CREDIT, "USD") == Decimal("-1.5")
    assert reconcile.check(tenant) == []


def test_credit_for_one_meter_pays_for_no_other(tenant, clock, as_staff, hold):
    grant(as_staff, tenant, 100, meters=["endpoint.requests"])
    clock.on(seconds=1)
    held = hold()
    use(tenant, 100, "r")  # 2.00
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")  # 2.50
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert (invoice.total, invoice.credit_total, invoice.due) == (Decimal("4.5"), 2, Decimal("2.5"))
    assert reconcile.check(tenant) == []


def test_a_run_cancelled_in_the_queue_bills_nothing_and_frees_its_hold(prepaid, clock, as_staff, as_ana):
    """Cancelled while queued: 0 billed, hold released, no empty line."""
    grant(as_staff, prepaid, 10)
    held = budgets.reserve(prepaid, source="job_1:1", amount=Decimal(4), high_estimate=Decimal(4))
    assert holds.held_of(prepaid) == 4
    assert holds.release_source("job_1:1", reason="canceled")
    assert not holds.release_source("job_1:1", reason="canceled")
    assert holds.held_of(prepaid) == 0
    assert invoices.draft(as_ana, prepaid, MARCH).lines == []
    assert held.reload().captured == 0


def test_a_second_try_and_a_zombie_of_the_first_bill_real_time_once(tenant, clock, hold, as_staff):
    """Attempt 2 runs while attempt 1 still beats with an old token: that is refused, both real times are billed."""
    first = hold(fence="one")
    clock.on(minutes=30)
    metering.beat(first.pk, fence="one")
    metering.close_at_last_beat(first.pk, reason="lost")
    second = hold(fence="two")
    clock.on(minutes=30)
    assert metering.beat(first.pk, fence="one") is Verdict.FENCED
    metering.close_allocation(second.pk, fence="two", reason="done")
    clock.to("2026-04-01 00:00:00")
    (line,) = invoices.finalize(as_staff, tenant, MARCH).lines.all()
    assert (line.quantity, line.amount) == (3600, Decimal("2.5"))


def test_a_hold_becomes_accrued_by_beats_and_the_rest_is_freed_at_the_end(prepaid, clock, as_staff, hold):
    """A hold larger than the true cost: the remainder is released; it is never captured twice."""
    grant(as_staff, prepaid, 10)
    placed = budgets.reserve(prepaid, source="job_1:1", amount=Decimal(8), high_estimate=Decimal(8))
    held = hold(hold=placed, lease_s=3600)
    free = credits.spendable(prepaid) - holds.held_of(prepaid)
    clock.on(hours=1)
    assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE
    assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE  # the same beat again
    assert placed.reload().captured == Decimal("2.5")
    assert credits.accrued(prepaid) == Decimal("2.5")
    assert credits.spendable(prepaid) - holds.held_of(prepaid) == free  # moved, not spent twice
    metering.close_allocation(held.pk, fence="f1", reason="done")
    metering.close_allocation(held.pk, fence="f1", reason="done")
    assert placed.reload().release_reason == "done"
    assert holds.held_of(prepaid) == 0
    assert credits.spendable(prepaid) == Decimal("7.5")
    assert reconcile.check(prepaid) == []


def test_a_hold_whose_work_never_began_is_freed_when_it_expires(prepaid, clock, as_staff, hold):
    """A crash between hold and first allocation: the reaper frees it; one that still runs is left alone."""
    grant(as_staff, prepaid, 10)
    holds.place_hold(prepaid, source="crashed", amount=Decimal(3), lives_s=60)
    runs = holds.place_hold(prepaid, source="runs", amount=Decimal(3), lives_s=60)
    held = hold(hold=runs)
    clock.on(seconds=61)
    assert holds.release_expired() == 1
    assert holds.held_of(prepaid) == 3
    metering.close_allocation(held.pk, fence="f1", reason="done")
    assert holds.held_of(prepaid) == 0


def test_a_hold_only_moves_forward_in_the_database(prepaid, clock, as_staff):
    grant(as_staff, prepaid, 10)
    placed = holds.place_hold(prepaid, source="x", amount=Decimal(3))
    holds.capture(placed.pk, Decimal(2))
    for change in ({"captured": 1}, {"amount": 9}, {"captured": 4}):
        with pytest.raises(DatabaseError), transaction.atomic():
            Hold.objects.filter(pk=placed.pk).update(**change)
    holds.release(placed.pk, reason="done")
    with pytest.raises(DatabaseError), transaction.atomic():
        Hold.objects.filter(pk=placed.pk).update(released_at=None)


def test_prepaid_work_is_refused_without_credit_and_stopped_when_it_is_used_up(
    prepaid, clock, as_staff, hold
):
    with pytest.raises(NotEnoughCredit):
        budgets.ensure_can_spend(prepaid, high_estimate=Decimal(0))
    grant(as_staff, prepaid, "2.50")
    budgets.ensure_can_spend(prepaid, high_estimate=Decimal(0))
    with pytest.raises(NotEnoughCredit, match=r"2\.50 USD of credit to spare and this needs 2\.51 USD"):
        budgets.reserve(prepaid, source="a", amount=Decimal("2.51"), high_estimate=Decimal(3))
    held = hold(lease_s=3600)
    clock.on(minutes=59)
    assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE
    clock.on(minutes=1)
    assert metering.beat(held.pk, fence="f1") is Verdict.STOP


def test_a_grant_that_expires_mid_run_pays_for_what_was_before_and_a_void_returns_it_to_the_same_lot(
    tenant, clock, as_staff, hold
):
    """Usage before expiry burns the lot, after does not; the rest breaks; a void gives back to the same lot."""
    clock.to("2026-03-10 12:00:00")
    expiry = clock.now() + timedelta(hours=1)
    lot = grant(as_staff, tenant, 10, kind="promo", expires_at=expiry)
    held = hold(units=2, lease_s=86400)
    clock.to("2026-03-10 14:00:00")  # one beat across the expiry: it is cut there
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.to("2026-03-10 13:59:59")
    assert closing.expire_credit() == 0  # beats of before the expiry may still come
    clock.to("2026-03-10 14:00:00")
    assert closing.expire_credit() == 1
    assert (lot.reload().remaining, lot.reload().broken) == (5, 5)  # 5.00 of use before it expired
    assert ledger.balance(tenant, AccountKind.BREAKAGE, "USD") == -5
    assert closing.expire_credit() == 0
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert (invoice.total, invoice.credit_total, invoice.due) == (10, 5, 5)
    assert left(lot) == [0]
    assert reconcile.check(tenant) == []
    invoices.void(as_staff, invoice, reason="wrong buyer")
    assert left(lot) == [5]
    assert lot.reload().expires_at == expiry
    assert ledger.balance(tenant, AccountKind.RECEIVABLE, "USD") == 0
    assert reconcile.check(tenant) == []
    again = invoices.finalize(as_staff, tenant, MARCH)
    assert (again.number, again.due, left(lot)) == ("INV-000002", 5, [0])
    assert CreditUse.objects.filter(grant=lot).count() == 3
    assert reconcile.check(tenant) == []


def test_only_the_last_untouched_invoice_can_be_voided(tenant, clock, as_staff, as_ana):
    use(tenant, 100, "a")
    clock.to("2026-04-01 00:00:00")
    march = invoices.finalize(as_staff, tenant, MARCH)
    use(tenant, 100, "b")
    clock.to("2026-05-01 00:00:00")
    april = invoices.finalize(as_staff, tenant, APRIL)
    with pytest.raises(Conflict, match="credit note"):
        invoices.void(as_staff, march, reason="x")
    with pytest.raises(Invalid):
        invoices.void(as_staff, april, reason=" ")
    with pytest.raises(Forbidden):
        invoices.void(as_ana, april, reason="x")
    invoices.void(as_staff, april, reason="x")
    assert invoices.void(as_staff, april, reason="x").is_void  # again: nothing more happens
    invoices.void(as_staff, march.reload(), reason="x")
    assert [invoices.finalize(as_staff, tenant, month).total for month in (MARCH, APRIL)] == [2, 2]
    assert reconcile.check(tenant) == []


def test_credit_is_granted_once_a_key_and_only_by_staff(tenant, clock, as_staff, as_ana):
    first = grant(as_staff, tenant, 5, key="a")
    assert grant(as_staff, tenant, 5, key="a") == first
    with pytest.raises(Conflict):
        grant(as_staff, tenant, 6, key="a")
    with pytest.raises(Forbidden):
        grant(as_ana, tenant, 5)
    for amount, fields in (
        ("0", {}), ("-1", {}), ("NaN", {}), ("1.001", {}), ("1e13", {}), ("1", {"kind": "x"}),
        ("1", {"meters": ["nope"]}), ("1", {"expires_at": clock.now()}),
    ):  # fmt: skip
        with pytest.raises(Invalid):
            grant(as_staff, tenant, amount, **fields)
    assert CreditGrant.objects.count() == 1


def test_the_database_refuses_credit_that_does_not_add_up(tenant, clock, as_staff):
    lot = grant(as_staff, tenant, 5)
    lots = CreditGrant.objects.filter(pk=lot.pk)
    for change in ({"remaining": -1}, {"remaining": 6}, {"amount": 9}, {"expires_at": clock.now()}):
        with pytest.raises(DatabaseError), transaction.atomic():
            lots.update(**change)
    with pytest.raises(DatabaseError, match="does not follow from its uses"), transaction.atomic():
        lots.update(remaining=4)
        with connection.cursor() as cursor:
            cursor.execute("set constraints all immediate")
    with pytest.raises(DatabaseError, match="overdrawn"), transaction.atomic():
        amounts = {AccountKind.CREDIT: Decimal(6), AccountKind.CASH: Decimal(-6)}
        ledger.post(tenant, key="x", currency="USD", amounts=amounts)
        with connection.cursor() as cursor:
            cursor.execute("set constraints all immediate")


def test_burning_follows_time_and_takes_each_cent_once(clock):
    at = clock.now()

    def lot(number, remaining, **fields):
        values = {"priority": 50, "starts_at": at, "expires_at": None, "is_promo": False, "created_at": at}
        return Lot(id=number, remaining=Decimal(remaining), **{**values, **fields})

    def owed(amount, hours, meter="m"):
        return Payable(at=at + timedelta(hours=hours), meter=meter, amount=Decimal(amount))

    lots = [lot(1, 3, expires_at=at + timedelta(hours=1)), lot(2, 4), lot(3, 9, meters=frozenset({"n"}))]
    assert burn([owed(5, 2), owed(2, 0)], lots) == {1: 2, 2: 4}
    assert burn([owed(5, 0), owed(5, 3, "n")], lots) == {1: 3, 2: 4, 3: 3}
    assert burn([], lots) == {}


# -- races, on real connections ------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_eight_threads_spend_the_last_credit_once():
    """Balance for one, eight at once: exactly one succeeds, the others are told, the ledger is the balance."""
    tenant = make_tenant("Lab")
    staff = actor_from_user(make_user("staff@example.org", tenant=make_tenant("House"), is_staff=True))
    accounts.change_account(staff, tenant, mode="prepaid")
    credits.grant_credit(staff, tenant, amount=Decimal(1), kind="paid", key="k")
    found = together(
        8,
        lambda n: budgets.reserve(tenant, source=f"job_{n}", amount=Decimal(1), high_estimate=Decimal(1)),
    )
    assert sum(isinstance(one, Hold) for one in found) == 1
    assert sum(isinstance(one, NotEnoughCredit) for one in found) == 7
    assert holds.held_of(tenant) == 1
    assert credits.spendable(tenant) == -ledger.balance(tenant, AccountKind.CREDIT, "USD") == 1


@pytest.mark.django_db(transaction=True)
def test_eight_threads_never_pass_a_hard_budget_together():
    tenant = make_tenant("Lab")
    ana = actor_from_user(make_user("ana@example.org", tenant=tenant, role="owner"))
    budgets.set_budget(ana, amount=Decimal(10), mode="block_new")
    found = together(
        8,
        lambda n: budgets.reserve(tenant, source=f"j{n}", amount=Decimal(4), high_estimate=Decimal(4)),
    )
    assert sum(isinstance(one, Hold) for one in found) == 2
    assert sum(isinstance(one, BudgetReached) for one in found) == 6


@pytest.mark.django_db(transaction=True)
def test_eight_threads_grant_one_key_once():
    tenant = make_tenant("Lab")
    staff = actor_from_user(make_user("staff@example.org", tenant=make_tenant("House"), is_staff=True))
    together(8, lambda _: credits.grant_credit(staff, tenant, amount=Decimal(5), kind="paid", key="k"))
    assert CreditGrant.objects.count() == 1
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 5
    assert reconcile.check(tenant) == []


def test_an_invoice_that_credit_alone_paid_can_be_voided_and_its_credit_is_back(tenant, clock, as_staff):
    clock.to("2026-03-10 12:00:00")
    lot = grant(as_staff, tenant, 10)
    use(tenant, 100, "a")
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert (invoice.status, invoice.due) == ("paid", 0)
    assert invoices.void(as_staff, invoice, reason="wrong buyer").is_void
    assert left(lot) == [10]
    assert reconcile.check(tenant) == []
