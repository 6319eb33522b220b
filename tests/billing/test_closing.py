"""The close of many accounts: as many statements as are needed, and what is written down about it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.models import Invoice, InvoiceSequence, PeriodClose
from billing.months import Month
from billing.services import accounts, closing, invoices, metering, reconcile
from tests.factories import make_tenant


def use(tenant, key, **fields):
    """A hundred thousand requests: 2.00."""
    return metering.record_usage(
        tenant, meter="endpoint.requests", quantity=100_000, source="t", key=key, subject="ep_1",
        subject_title="digits", **fields,
    )  # fmt: skip


def statements_of_a_close():
    with CaptureQueriesContext(connection) as caught:
        closing.close_due()
    return len(caught)


def test_one_more_account_costs_a_close_few_statements(tenant, clock):
    """Every statement is a wait for the database: with a thousand accounts one more of them is felt."""
    use(tenant, "a")
    clock.to("2026-04-01 02:00:00")
    one = statements_of_a_close()
    three = [make_tenant(f"T{n}") for n in range(3)]
    clock.to("2026-04-10 00:00:00")
    for other in three:
        use(other, "a")
    clock.to("2026-05-01 02:00:00")
    per_account = (statements_of_a_close() - one) / 2
    assert Invoice.objects.count() == 4
    assert per_account <= 55, per_account


def test_accounts_with_nothing_due_are_looked_at_together(tenant, clock):
    use(tenant, "a")
    clock.to("2026-04-01 02:00:00")
    closing.close_due()
    alone = statements_of_a_close()
    for number in range(5):
        use(make_tenant(f"T{number}"), "a")  # April runs
    assert statements_of_a_close() == alone


def test_a_month_is_noted_as_closed_in_the_transaction_of_its_invoice(tenant, clock, monkeypatch):
    use(tenant, "a")
    clock.to("2026-04-01 02:00:00")
    noted = closing._note

    def dies(*args, **fields):
        assert Invoice.objects.exists()  # made, not committed
        raise RuntimeError("the machine stops here")

    monkeypatch.setattr(closing, "_note", dies)
    with pytest.raises(RuntimeError):
        closing.close_due()
    assert not Invoice.objects.exists() and not PeriodClose.objects.exists()
    assert InvoiceSequence.objects.get(series="INV").last == 0
    monkeypatch.setattr(closing, "_note", noted)
    assert closing.close_due().invoiced == 1
    row = PeriodClose.objects.get()
    assert (row.outcome, row.invoice.number, row.tries) == ("invoiced", "INV-000001", 1)


def test_every_try_of_a_month_is_counted_and_the_last_one_is_told(tenant, clock, hold):
    clock.to("2026-03-31 23:59:00")
    held = hold()
    clock.to("2026-04-01 02:00:00")
    assert [closing.close_due().waiting for _again in range(2)] == [0, 0]  # no usage is written yet
    metering.close_allocation(held.pk, fence="f1", reason="done")
    again = hold()
    clock.to("2026-05-01 02:00:00")
    assert [closing.close_due().waiting for _again in range(2)] == [1, 1]
    row = PeriodClose.objects.get(period_start=Month(2026, 4).start)
    assert (row.outcome, row.tries, row.invoice) == ("waiting", 2, None)
    metering.close_allocation(again.pk, fence="f1", reason="done")
    assert closing.close_due().invoiced == 1
    row.refresh_from_db()
    assert (row.outcome, row.tries, row.detail) == ("invoiced", 3, "")


def test_a_month_that_was_billed_in_part_is_due_at_its_end(tenant, clock, as_staff):
    """Days before the early invoice still count: their month has no invoice to its end."""
    accounts.change_account(as_staff, tenant, zone="America/New_York", anchor_day=15)
    use(tenant, "a")
    clock.on(hours=1)
    early = invoices.finalize(as_staff, tenant, Month(2026, 2), early=True)
    use(tenant, "b", event_time=clock.now() - timedelta(minutes=1))  # late, of the part that is billed
    clock.to("2026-03-15 06:00:00")
    assert closing.close_due().invoiced == 1
    rest = Invoice.objects.exclude(pk=early.pk).get()
    assert (rest.period_start, rest.total) == (early.period_end, early.total)
    assert reconcile.check(tenant) == []


def test_a_sum_that_no_column_holds_is_one_accounts_trouble_and_no_others(tenant, clock):
    rich, after = tenant, make_tenant("After")
    metering.record_usage(
        rich,
        meter="train.gpu",
        quantity=Decimal(10) ** 25,
        source="t",
        key="a",
        subject="job_1",
        subject_title="j",
    )
    use(after, "a")
    clock.to("2026-04-01 02:00:00")
    closing.close_due()
    assert [one.tenant for one in Invoice.objects.all()] == [after]
    assert PeriodClose.objects.get(tenant=rich).outcome == "failed"
