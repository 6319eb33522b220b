"""Worked examples of the close: by the clock, catching up, at once, killed, and after a tenant left."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.deletion import ProtectedError

from billing.models import Invoice, PeriodClose, UsageDay
from billing.months import Month
from billing.services import accounts, closing, documents, invoices, metering, payments, reconcile
from tenants.errors import Conflict, Forbidden, Hidden
from tenants.http import actor_from_user
from tests.billing.test_cases_invoices import MARCH, use
from tests.billing.test_invoices import together
from tests.factories import make_tenant, make_user

# -- the scheduled close ---------------------------------------------------------------------------------------


def test_a_month_is_closed_by_the_clock_after_its_grace(tenant, clock, as_staff):
    use(tenant, 100, "a")
    clock.to("2026-04-01 00:59:59")
    assert closing.close_due().invoiced == 0
    clock.to("2026-04-01 01:00:00")
    use(tenant, 10, "straggler", event_time=MARCH.end - timedelta(seconds=1))
    assert closing.close_due().invoiced == 1
    made = Invoice.objects.get()
    assert (made.total, made.number) == (Decimal("2.2"), "INV-000001")
    assert made.due_at == clock.now() + timedelta(days=14)
    assert closing.close_due().invoiced == 0
    assert PeriodClose.objects.get().outcome == "invoiced"


def test_what_keeps_one_account_open_keeps_no_other_waiting(tenant, clock, as_staff, hold):
    other = make_tenant("Other")
    third = make_tenant("Third")
    clock.to("2026-03-31 23:59:00")
    held = hold()
    clock.on(seconds=30)
    metering.beat(held.pk, fence="f1")  # has not reported beyond the month's end
    use(other, 100, "a")
    use(third, 100, "a")
    UsageDay.objects.filter(tenant=third).update(quantity=1)  # its books disagree
    clock.to("2026-04-01 02:00:00")
    found = closing.close_due()
    assert (found.invoiced, found.waiting, found.failed) == (1, 1, 1)
    assert dict(PeriodClose.objects.values_list("tenant__name", "outcome")) == {
        "Lab": "waiting", "Other": "invoiced", "Third": "failed",
    }  # fmt: skip
    assert "do not agree" in PeriodClose.objects.get(tenant=third).detail


def test_the_close_catches_up_months_in_order(tenant, clock, as_staff):
    use(tenant, 100, "a")
    clock.to("2026-04-10 00:00:00")
    use(tenant, 200, "b")
    clock.to("2026-05-10 00:00:00")
    assert closing.close_due().invoiced == 2
    assert list(Invoice.objects.order_by("number").values_list("total", flat=True)) == [2, 4]


@pytest.mark.django_db(transaction=True)
def test_two_closers_at_once_make_one_invoice_for_each_account_without_gaps(monkeypatch):
    from billing import clock as billing_clock

    tenants = [make_tenant(f"T{n}") for n in range(6)]
    for tenant in tenants:
        use(tenant, 100, "a")
    later = Month.of(datetime.now(UTC)).end + timedelta(hours=2)
    monkeypatch.setattr(billing_clock, "now", lambda: later)
    found = together(4, lambda _: closing.close_due())
    assert not [one for one in found if isinstance(one, Exception)]
    numbers = sorted(Invoice.objects.values_list("number", flat=True))
    assert numbers == [f"INV-{n:06d}" for n in range(1, 7)]
    assert {tenant.pk for tenant in tenants} == set(Invoice.objects.values_list("tenant", flat=True))
    assert all(reconcile.check(tenant) == [] for tenant in tenants)


_DIES = """
import os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "console.settings"
django.setup()
from datetime import timedelta, datetime, UTC
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from billing import clock
from billing.months import Month
later = Month.of(datetime.now(UTC)).end + timedelta(hours=2)
clock.now = lambda: later
from billing.services import invoices, closing, ledger
def die(*args, **options):
    print("numbered", flush=True)
    os.kill(os.getpid(), 9)
ledger.post = die
closing.close_due()
"""


@pytest.mark.django_db(transaction=True)
def test_a_closer_that_is_killed_after_numbering_leaves_nothing_and_the_next_makes_the_same_invoice(
    monkeypatch,
):
    """Killed with -9 between number and ledger: no invoice, no number taken; the re-run has the same content."""
    from billing import clock as billing_clock

    tenant = make_tenant("Lab")
    use(tenant, 100, "a")
    later = Month.of(datetime.now(UTC)).end + timedelta(hours=2)
    monkeypatch.setattr(billing_clock, "now", lambda: later)
    drafted = invoices.draft(
        actor_from_user(make_user("s@example.org", tenant=make_tenant("H"), is_staff=True)),
        tenant, Month.of(datetime.now(UTC)),
    )  # fmt: skip
    died = subprocess.run(
        [sys.executable, "-c", _DIES, connection.settings_dict["NAME"]],
        capture_output=True, text=True, timeout=120, check=False, cwd=settings.BASE_DIR,
    )  # fmt: skip
    assert died.stdout == "numbered\n" and died.returncode == -9, died.stderr
    assert not Invoice.objects.exists()
    assert closing.close_due().invoiced == 1
    made = Invoice.objects.get()
    assert (made.number, made.total) == ("INV-000001", drafted.invoice.total)
    assert made.content_hash == documents.content_hash(documents.stored(made))
    assert reconcile.check(tenant) == []


# -- the end of a tenant ---------------------------------------------------------------------------------------


def test_a_tenant_that_leaves_mid_month_is_billed_to_that_instant_and_late_usage_is_corrected(
    tenant, clock, as_staff, as_ana, hold, cy, as_cy
):
    """Final invoice at the instant; a new tenant of the same name sees nothing; rows stay while unpaid."""
    accounts.change_account(as_staff, tenant, commitment=Decimal(500))
    held = hold()
    clock.to("2026-03-10 13:00:00")
    with pytest.raises(Conflict, match="still run"):
        closing.close_account(as_staff, tenant)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.on(seconds=1)
    with pytest.raises(Forbidden):
        closing.close_account(as_ana, tenant)
    (final,) = closing.close_account(as_staff, tenant)
    assert (final.total, final.period_end) == (Decimal("2.5"), clock.now())  # no minimum of a broken month
    tenant.refresh_from_db()
    assert tenant.closed_at == clock.now()
    assert closing.close_account(as_staff, tenant) == [final]
    with pytest.raises(Conflict, match="unpaid invoices"):
        closing.ensure_may_delete(tenant)
    with pytest.raises((ProtectedError, DatabaseError)), transaction.atomic():
        type(tenant).objects.filter(pk=tenant.pk).delete()
    use(tenant, 100, "late", event_time=clock.now() - timedelta(minutes=1))
    namesake = make_tenant("Lab", slug="lab-2")
    clock.to("2026-04-02 00:00:00")
    assert closing.close_due().invoiced == 1
    correction = Invoice.objects.get(kind="correction")
    assert (correction.total, correction.buyer_name) == (2, "Lab")
    assert not Invoice.objects.filter(tenant=namesake).exists()
    for one in (final, correction):
        with pytest.raises(Hidden):
            invoices.find(as_cy, one.public_id)
        payments.record_payment(as_staff, one, amount=one.due, reference=one.number, key=one.number)
    closing.ensure_may_delete(tenant)
    assert reconcile.check(tenant) == []
