"""Worked examples of invoices and notes: late, twice, at once, and when the books disagree."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, connection, transaction

from billing import pdf
from billing.errors import Parked
from billing.models import (
    AccountKind,
    CreditGrant,
    CreditNote,
    CreditNoteLine,
    Invoice,
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
from tests.factories import make_tenant, make_user

MARCH, APRIL = Month(2026, 3), Month(2026, 4)
FROM_START = datetime(2020, 1, 1, tzinfo=UTC)


def use(tenant, thousands, key, **fields):
    """Requests at 0.02 a thousand."""
    values = {"meter": "endpoint.requests", "source": "t", "subject": "ep_1", "subject_title": "digits"}
    return metering.record_usage(tenant, quantity=thousands * 1000, key=key, **{**values, **fields})


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
