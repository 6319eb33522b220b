"""Worked examples of invoices, notes and the close: late, twice, at once, and after a tenant left."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.deletion import ProtectedError

from billing import pdf
from billing.errors import Parked
from billing.models import (
    AccountKind,
    CreditGrant,
    CreditNote,
    CreditNoteLine,
    Invoice,
    PeriodClose,
    TaxRate,
    UsageDay,
)
from billing.months import Month
from billing.services import (
    accounts,
    closing,
    credits,
    documents,
    invoices,
    ledger,
    metering,
    notes,
    payments,
    receivables,
    reconcile,
)
from tenants.errors import Conflict, Forbidden, Hidden, Invalid
from tenants.http import actor_from_user
from tests.billing.test_invoices import together
from tests.factories import make_tenant, make_user

MARCH, APRIL, MAY = Month(2026, 3), Month(2026, 4), Month(2026, 5)
FROM_START = datetime(2020, 1, 1, tzinfo=UTC)


def use(tenant, thousands, key, **fields):
    """Requests at 0.02 a thousand."""
    values = {"meter": "endpoint.requests", "source": "t", "subject": "ep_1", "subject_title": "digits"}
    return metering.record_usage(tenant, quantity=thousands * 1000, key=key, **{**values, **fields})


def parts(invoice):
    return (invoice.net, invoice.tax_total, invoice.total)


@pytest.fixture
def taxed(tenant, clock, as_staff):
    TaxRate.objects.create(region="AT", title="VAT", percent=20, valid_from=FROM_START)
    accounts.change_account(as_staff, tenant, tax_region="AT")
    return tenant


@pytest.fixture
def invoice(taxed, clock, as_staff):
    """60.00 net, 72.00 gross, March 2026."""
    use(taxed, 3000, "march")
    clock.to("2026-04-01 00:00:00")
    return invoices.finalize(as_staff, taxed, MARCH)


def test_late_usage_never_changes_a_frozen_invoice_and_is_billed_once_on_the_next(tenant, clock, as_staff):
    """Bytes and hash stay; the correction has its original time and price; nothing is lost or doubled."""
    use(tenant, 100, "a")
    clock.to("2026-04-01 00:00:00")
    march = invoices.finalize(as_staff, tenant, MARCH)
    before = pdf.render(documents.stored(march.reload()))
    late = clock.now() - timedelta(hours=5)
    use(tenant, 50, "late", event_time=late)
    assert pdf.render(documents.stored(march.reload())) == before
    clock.to("2026-05-02 00:00:00")
    assert closing.close_due().invoiced == 1  # late usage alone is due, too
    april = Invoice.objects.get(period_start=APRIL.start)
    (line,) = april.lines.all()
    assert (line.late, line.started_at, line.amount) == (True, late, 1)
    assert documents.content_hash(documents.stored(march.reload())) == march.content_hash
    assert closing.close_due().invoiced == 0
    assert reconcile.check(tenant) == []


@pytest.mark.django_db(transaction=True)
def test_usage_that_is_stored_but_not_committed_at_the_cut_off_is_on_this_invoice_or_the_next():
    """A slow insert holds the gate: the close waits for it, and its event is on the invoice."""
    tenant = make_tenant("Lab")
    staff = actor_from_user(make_user("staff@example.org", tenant=make_tenant("House"), is_staff=True))
    month = Month.of(datetime.now(UTC))
    use(tenant, 100, "a")
    stored, go_on = threading.Event(), threading.Event()

    def slowly():
        try:
            with transaction.atomic():
                use(tenant, 50, "slow")
                stored.set()
                go_on.wait(timeout=60)
        finally:
            connection.close()

    def close():
        try:
            made.append(invoices.finalize(staff, tenant, month, early=True))
        finally:
            connection.close()

    made: list[Invoice] = []
    slow, closer = threading.Thread(target=slowly), threading.Thread(target=close)
    slow.start()
    assert stored.wait(timeout=60)
    closer.start()
    closer.join(timeout=1)
    assert closer.is_alive() and not made  # waits at the gate
    go_on.set()
    slow.join(timeout=60)
    closer.join(timeout=60)
    assert made[0].total == 3
    assert reconcile.check(tenant) == []


def test_thirty_net_at_20_per_cent_is_a_note_of_36_and_more_than_is_left_is_refused(
    invoice, taxed, clock, as_staff
):
    """A paid invoice: the note has its own number; a second one beyond the rest is refused."""
    payments.record_payment(as_staff, invoice, amount=Decimal(72), reference="bank 1", key="p")
    assert invoice.reload().status == "paid"
    note = notes.issue_note(
        as_staff, invoice, amounts={1: Decimal(30)}, reason="outage", rest="credit", key="n1"
    )
    assert (note.number, note.net, note.tax_total, note.total) == ("CN-000001", 30, 6, 36)
    assert (note.off_receivable, note.to_credit) == (0, 36)
    assert CreditGrant.objects.get(kind="refund").remaining == 36
    again = notes.issue_note(
        as_staff, invoice, amounts={1: Decimal(30)}, reason="outage", rest="credit", key="n1"
    )
    assert again == note
    with pytest.raises(Conflict):
        notes.issue_note(as_staff, invoice, amounts={1: Decimal(1)}, reason="x", rest="credit", key="n1")
    with pytest.raises(Invalid, match=r"Only 30\.00 USD") as refused:
        notes.issue_note(
            as_staff, invoice, amounts={1: Decimal("30.01")}, reason="x", rest="credit", key="n2"
        )
    assert refused.value.faults[0].pointer == "/amounts/1"
    assert invoice.reload().content_hash == documents.content_hash(documents.stored(invoice.reload()))
    assert reconcile.check(taxed) == []


def test_a_note_on_an_unpaid_invoice_lowers_what_is_owed_and_settles_it(invoice, taxed, as_staff):
    notes.issue_note(as_staff, invoice, amounts={1: Decimal(30)}, reason="a", rest="credit", key="1")
    assert receivables.outstanding(invoice) == 36
    notes.issue_note(as_staff, invoice, amounts={1: Decimal(30)}, reason="b", rest="credit", key="2")
    assert invoice.reload().status == "paid"
    assert ledger.balance(taxed, AccountKind.RECEIVABLE, "USD") == 0
    assert ledger.balance(taxed, AccountKind.REVENUE, "USD") == 0
    assert ledger.balance(taxed, AccountKind.TAX, "USD") == 0
    assert reconcile.check(taxed) == []


def test_taxes_of_many_small_notes_sum_to_the_tax_of_the_invoice(taxed, clock, as_staff):
    use(taxed, 166, "a")  # 3.32, tax 0.66
    clock.to("2026-04-01 00:00:00")
    made = invoices.finalize(as_staff, taxed, MARCH)
    for number in range(332):
        if number % 4 == 0:  # 83 notes of 0.04
            notes.issue_note(
                as_staff, made, amounts={1: Decimal("0.04")}, reason="x", rest="credit", key=str(number)
            )
    assert sum(note.tax_total for note in CreditNote.objects.all()) == made.tax_total == Decimal("0.66")
    assert reconcile.check(taxed) == []


def test_the_database_refuses_notes_beyond_a_line_and_changes_of_a_note(invoice, as_staff):
    note = notes.issue_note(as_staff, invoice, amounts={1: Decimal(30)}, reason="a", rest="credit", key="1")
    line = note.lines.get().line
    for change in (
        lambda: CreditNoteLine.objects.create(note=note, line=line, amount=Decimal(31)),
        lambda: CreditNote.objects.update(total=1),
        lambda: note.lines.all().delete(),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()


def test_only_staff_make_notes_and_a_stranger_sees_none(invoice, as_staff, as_ana, as_ben, as_cy):
    with pytest.raises(Forbidden):
        notes.issue_note(as_ana, invoice, amounts={1: Decimal(1)}, reason="a", rest="credit", key="1")
    note = notes.issue_note(as_staff, invoice, amounts={1: Decimal(1)}, reason="a", rest="credit", key="1")
    assert notes.find(as_ana, note.public_id) == note
    for actor in (as_ben, as_cy):
        with pytest.raises(Hidden):
            notes.find(actor, note.public_id)


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


# -- books that disagree ---------------------------------------------------------------------------------------


def test_a_mismatch_parks_the_account_until_staff_say_what_it_was(
    tenant, clock, as_staff, as_ana, staff, mailoutbox, django_capture_on_commit_callbacks
):
    use(tenant, 100, "a")
    right = UsageDay.objects.get().quantity
    assert reconcile.check_all() == {}
    UsageDay.objects.update(quantity=1)
    with django_capture_on_commit_callbacks(execute=True):
        found = reconcile.check_all()
        reconcile.check_all()  # told once
    assert list(found) == [tenant.public_id]
    assert [message.to for message in mailoutbox] == [[staff.email]]
    UsageDay.objects.update(quantity=right)
    clock.to("2026-04-01 02:00:00")
    with pytest.raises(Parked):
        invoices.finalize(as_staff, tenant, MARCH)
    assert closing.close_due().invoiced == 0
    with pytest.raises(Forbidden):
        accounts.unpark(as_ana, tenant, note="x")
    with pytest.raises(Invalid):
        accounts.unpark(as_staff, tenant, note=" ")
    accounts.unpark(as_staff, tenant, note="a row was edited by hand")
    assert closing.close_due().invoiced == 1


@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("told", "update billing_usageevent set quantity = quantity + 1"),
        ("settled", "delete from billing_usageinterval"),
        ("day", "update billing_usageday set quantity = quantity + 1"),
        ("sum to the total", "update billing_invoice set total = total + 1"),
        ("taxes sum", "update billing_invoice set tax_total = tax_total + 1"),
        ("of credit", "delete from billing_credituse"),
        ("parts", "update billing_invoicepart set quantity = quantity + 1"),
        ("usage events differ", "update billing_invoiceline set quantity = quantity + 1"),
        ("cash", "delete from billing_payment"),
        ("credit: documents", "update billing_creditgrant set remaining = 0 where remaining > 0"),
        ("sum to zero", "update billing_ledgerentry set amount = amount + 1 where amount > 0"),
        ("revenue", "update billing_ledgerentry set amount = amount * 2"),
    ],
)
def test_every_kind_of_tampering_is_found(taxed, clock, as_staff, hold, name, sql):
    """With the triggers off, as somebody with the database could; each sum is compared with another source."""
    credits.grant_credit(as_staff, taxed, amount=Decimal(5), kind="paid", key="k")
    clock.on(seconds=1)
    held = hold()
    clock.on(hours=2)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.to("2026-04-01 00:00:00")
    made = invoices.finalize(as_staff, taxed, MARCH)
    payments.record_payment(as_staff, made, amount=made.due + 1, reference="b", key="p")
    assert reconcile.check(taxed) == []
    with connection.cursor() as cursor:
        cursor.execute("set constraints all immediate")
        cursor.execute("set local session_replication_role = replica")
        cursor.execute(sql)
        cursor.execute("set local session_replication_role = origin")
    assert any(name in one for one in reconcile.check(taxed)), reconcile.check(taxed)
