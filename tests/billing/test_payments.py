"""Payments by hand, overpayments, refunds and what happens while nothing is paid."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import DatabaseError, transaction

from billing.errors import UnpaidInvoices
from billing.models import AccountKind, CreditGrant, DunningStep, Payment, Refund
from billing.months import Month
from billing.services import (
    accounts,
    budgets,
    dunning,
    ledger,
    metering,
    notes,
    payments,
    receivables,
    reconcile,
)
from billing.services.metering import Verdict
from tenants.errors import Conflict, Forbidden, Invalid

MARCH = Month(2026, 3)


def pay(as_staff, invoice, amount, key="p", reference="bank"):
    return payments.record_payment(as_staff, invoice, amount=Decimal(amount), reference=reference, key=key)


def test_parts_pay_an_invoice_and_what_is_more_becomes_credit(invoice, tenant, as_staff):
    pay(as_staff, invoice, 4, "1", "a")
    assert (receivables.outstanding(invoice), invoice.reload().status) == (6, "finalized")
    second = pay(as_staff, invoice, 9, "2", "b")
    assert (invoice.reload().status, second.to_credit) == ("paid", 3)
    assert CreditGrant.objects.get().remaining == 3
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 13
    assert ledger.balance(tenant, AccountKind.RECEIVABLE, "USD") == 0
    assert reconcile.check(tenant) == []


def test_a_payment_is_booked_once_a_key_and_once_a_reference(invoice, tenant, as_staff, as_ana):
    first = pay(as_staff, invoice, 4)
    assert pay(as_staff, invoice, 4) == first
    with pytest.raises(Conflict):
        pay(as_staff, invoice, 5)
    with pytest.raises(Conflict, match="reference"):
        pay(as_staff, invoice, 4, key="other")
    with pytest.raises(Forbidden):
        pay(as_ana, invoice, 4, key="mine", reference="x")
    for amount in ("0", "-1", "NaN", "1.001", "1e12"):
        with pytest.raises(Invalid):
            pay(as_staff, invoice, amount, key="bad", reference="y")
    assert Payment.objects.filter(status="succeeded").count() == 1
    assert reconcile.check(tenant) == []


def test_a_booked_payment_never_changes(invoice, as_staff):
    pay(as_staff, invoice, 4)
    for change in ({"amount": 5}, {"status": "failed"}, {"to_credit": 1}):
        with pytest.raises(DatabaseError), transaction.atomic():
            Payment.objects.update(**change)


def test_a_refund_pays_back_what_a_note_left_and_no_more(invoice, tenant, as_staff):
    paid = pay(as_staff, invoice, 10)
    note = notes.issue_note(
        as_staff, invoice, amounts={1: Decimal(6)}, reason="outage", rest="refund", key="n"
    )
    assert ledger.balance(tenant, AccountKind.PAYABLE, "USD") == -6
    first = payments.refund(as_staff, note, paid, amount=Decimal(4), key="r1")
    assert payments.refund(as_staff, note, paid, amount=Decimal(4), key="r1") == first
    with pytest.raises(Conflict, match=r"Only 2\.00 USD"):
        payments.refund(as_staff, note, paid, amount=Decimal(3), key="r2")
    payments.refund(as_staff, note, paid, amount=Decimal(2), key="r3")
    assert ledger.balance(tenant, AccountKind.PAYABLE, "USD") == 0
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 4
    with pytest.raises(DatabaseError), transaction.atomic():
        Refund.objects.create(tenant=tenant, payment=paid, key="z", amount=Decimal("4.01"))
    assert reconcile.check(tenant) == []


def test_by_hand_nothing_is_charged_by_machine(invoice, as_ana):
    with pytest.raises(Conflict, match="by hand"):
        payments.pay_invoice(as_ana, invoice, key="k")
    with pytest.raises(Conflict, match="by hand"):
        payments.buy_credit(as_ana, invoice.tenant, amount=Decimal(5), key="k")


def test_an_unpaid_invoice_is_reminded_then_blocks_new_work_then_stops_what_runs(
    invoice, tenant, clock, as_staff, as_ana, hold, mailoutbox, django_capture_on_commit_callbacks
):
    held = hold(lease_s=10**8)

    def chase(day):
        clock.to(day)
        with django_capture_on_commit_callbacks(execute=True):
            taken = dunning.chase()
            dunning.chase()  # again on the same day: nothing more
        return taken, accounts.of(tenant).standing, len(mailoutbox)

    assert chase("2026-04-15 12:00:00") == (0, "good", 0)
    assert chase("2026-04-16 12:00:00") == (1, "good", 1)
    assert chase("2026-04-22 12:00:00") == (1, "good", 2)
    budgets.ensure_can_spend(tenant, high_estimate=Decimal(1))
    assert chase("2026-04-29 12:00:00") == (1, "block_new", 3)
    with pytest.raises(UnpaidInvoices):
        budgets.ensure_can_spend(tenant, high_estimate=Decimal(0))
    assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE
    assert [planned.on.isoformat() for planned in dunning.plan(invoice.reload())] == [
        "2026-04-16", "2026-04-22", "2026-04-29", "2026-05-15",
    ]  # fmt: skip
    assert chase("2026-05-15 12:00:00") == (1, "stop", 4)
    assert metering.beat(held.pk, fence="f1") is Verdict.STOP
    assert budgets.should_stop(tenant, subject="job_1", max_spend=None)
    assert "checkpoint" in mailoutbox[-1].body and "10.00 USD" in mailoutbox[-1].body
    pay(as_staff, invoice, 10)
    assert accounts.of(tenant).standing == "good"
    assert metering.beat(held.pk, fence="f1") is Verdict.CONTINUE
    assert dunning.plan(invoice.reload()) == []
    with pytest.raises(DatabaseError), transaction.atomic():
        DunningStep.objects.all().delete()


def test_steps_that_were_missed_are_caught_up_in_one_mail(
    invoice, tenant, clock, as_ana, mailoutbox, django_capture_on_commit_callbacks
):
    clock.to("2026-06-01 00:00:00")
    with django_capture_on_commit_callbacks(execute=True):
        assert dunning.chase() == 4
    assert accounts.of(tenant).standing == "stop"
    assert len(mailoutbox) == 1
