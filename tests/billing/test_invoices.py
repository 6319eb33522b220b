"""A month becomes one frozen, numbered invoice; nothing is billed twice and nothing is lost."""

from __future__ import annotations

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, connection, transaction

from billing import clock as billing_clock
from billing import rating
from billing.errors import NothingToBill, NotYet
from billing.models import AccountKind, Invoice, InvoiceLine, LedgerEntry, LedgerTransaction, UsageEvent
from billing.months import Month
from billing.services import documents, invoices, ledger, metering, reconcile
from billing.services.metering import record_usage
from tenants.errors import Conflict, Forbidden, Hidden
from tenants.models import AuditEntry
from tests.factories import make_tenant, make_user

MARCH = Month(2026, 3)
APRIL = Month(2026, 4)


def requests(tenant, quantity, key, **fields):
    values = {"meter": "endpoint.requests", "source": "gateway", "subject": "ep_1", "subject_title": "digits"}
    return record_usage(tenant, quantity=quantity, key=key, **{**values, **fields})


def lines_of(invoice):
    return [(line.meter_id, line.late, line.quantity, line.amount) for line in invoice.lines.all()]


@pytest.fixture
def used_in_march(tenant, clock, hold):
    held = hold(units=4)
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    requests(tenant, 50_500, "march")


def test_a_draft_is_there_all_month_and_stores_nothing(tenant, clock, as_ana, used_in_march):
    made = invoices.draft(as_ana, tenant, MARCH)
    assert made.invoice.total == Decimal("11.01")
    assert [line.amount for line, _parts in made.lines] == [Decimal("1.01"), Decimal("10.00")]
    assert not Invoice.objects.exists()


def test_a_finalized_invoice_is_numbered_posted_audited_and_agrees_with_its_draft(
    tenant, clock, as_ana, as_staff, used_in_march
):
    made = invoices.draft(as_ana, tenant, MARCH)
    clock.to("2026-04-01 00:00:01")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert invoice.number == "INV-000001"
    assert invoice.reload().total == made.invoice.total
    assert (invoice.period_start, invoice.period_end) == (MARCH.start, MARCH.end)
    assert ledger.balance(tenant, AccountKind.RECEIVABLE, "USD") == Decimal("11.01")
    assert ledger.balance(tenant, AccountKind.REVENUE, "USD") == Decimal("-11.01")
    assert AuditEntry.objects.filter(action="invoice.finalized", target_id=invoice.public_id).exists()
    assert documents.content_hash(documents.stored(invoice.reload())) == invoice.content_hash
    assert reconcile.check(tenant) == []


def test_finalizing_again_returns_the_same_invoice(tenant, clock, as_staff, used_in_march):
    clock.to("2026-04-01 00:00:01")
    first = invoices.finalize(as_staff, tenant, MARCH)
    assert invoices.finalize(as_staff, tenant, MARCH) == first
    assert Invoice.objects.count() == LedgerTransaction.objects.count() == 1


def test_a_month_that_runs_is_finalized_only_early(tenant, clock, as_staff, used_in_march):
    with pytest.raises(NotYet, match="close it early"):
        invoices.finalize(as_staff, tenant, MARCH)
    with pytest.raises(NotYet, match="has not begun"):
        invoices.finalize(as_staff, tenant, APRIL, early=True)
    assert invoices.finalize(as_staff, tenant, MARCH, early=True).period_end == clock.now()


def test_after_an_early_close_the_rest_goes_on_the_next_invoice(tenant, clock, hold, as_staff, as_ana):
    held = hold()
    clock.on(minutes=60)
    metering.beat(held.pk, fence="f1")
    clock.on(seconds=3)  # not reported yet when the month is closed
    first = invoices.finalize(as_staff, tenant, MARCH, early=True)
    cut = clock.now()
    clock.on(seconds=7)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.to("2026-04-01 00:00:01")
    second = invoices.finalize(as_staff, tenant, MARCH)
    assert lines_of(first) == [("train.gpu", False, 3600, Decimal("2.50"))]
    assert second.period_start == first.period_end == cut
    # three seconds lie before the cut: they come late, under their own time; seven belong to the new period
    assert [(late, quantity) for _meter, late, quantity, _amount in lines_of(second)] == [
        (False, 7),
        (True, 3),
    ]
    assert sum(line.quantity for line in InvoiceLine.objects.all()) == 3610
    assert reconcile.check(tenant) == []


def test_closing_early_twice_with_the_same_draft_makes_one_invoice(tenant, clock, as_staff, used_in_march):
    first = invoices.finalize(as_staff, tenant, MARCH, early=True, period_start=MARCH.start)
    clock.on(minutes=1)
    requests(tenant, 1000, "later")
    again = invoices.finalize(as_staff, tenant, MARCH, early=True, period_start=MARCH.start)
    assert again == first
    assert Invoice.objects.count() == 1


def test_late_usage_goes_on_the_next_invoice_with_its_own_time_and_price(
    tenant, clock, as_staff, used_in_march
):
    clock.to("2026-04-01 00:00:01")
    march = invoices.finalize(as_staff, tenant, MARCH)
    before = march.content_hash
    late = clock.now() - timedelta(hours=5)
    requests(tenant, 2_000, "straggler", event_time=late)
    requests(tenant, 1_000, "april")
    clock.to("2026-05-01 00:00:01")
    april = invoices.finalize(as_staff, tenant, APRIL)
    assert lines_of(april) == [
        ("endpoint.requests", False, 1000, Decimal("0.02")),
        ("endpoint.requests", True, 2000, Decimal("0.04")),
    ]
    assert april.lines.get(late=True).started_at == late
    assert documents.content_hash(documents.stored(march.reload())) == before
    assert reconcile.check(tenant) == []


def test_an_older_month_comes_first(tenant, clock, as_staff, used_in_march):
    clock.to("2026-04-20 00:00:00")
    requests(tenant, 1_000, "april")
    clock.to("2026-05-01 00:00:01")
    with pytest.raises(Conflict, match="Finalize 2026-03 first"):
        invoices.finalize(as_staff, tenant, APRIL)
    invoices.finalize(as_staff, tenant, MARCH)
    assert invoices.finalize(as_staff, tenant, APRIL).number == "INV-000002"


def test_a_month_without_usage_makes_no_invoice_and_takes_no_number(tenant, clock, as_staff):
    clock.to("2026-04-01 00:00:01")
    with pytest.raises(NothingToBill):
        invoices.finalize(as_staff, tenant, MARCH)
    requests(tenant, 1_000, "april")
    clock.to("2026-05-01 00:00:01")
    assert invoices.finalize(as_staff, tenant, APRIL).number == "INV-000001"


def test_what_was_cancelled_in_the_queue_costs_nothing(tenant, clock, as_ana, hold):
    held = hold()
    metering.close_allocation(held.pk, fence="f1", reason="canceled")
    assert invoices.draft(as_ana, tenant, MARCH).lines == []


def test_a_running_holder_that_has_not_passed_the_month_end_is_waited_for(tenant, clock, hold, as_staff):
    clock.to("2026-03-31 23:59:50")
    held = hold()
    clock.to("2026-04-01 00:00:01")
    with pytest.raises(NotYet) as refused:
        invoices.finalize(as_staff, tenant, MARCH)
    assert refused.value.retry_after_s
    metering.beat(held.pk, fence="f1")
    assert lines_of(invoices.finalize(as_staff, tenant, MARCH)) == [("train.gpu", False, 10, Decimal("0.01"))]


def test_a_price_change_makes_two_lines(tenant, clock, hold, as_staff, as_ana):
    from billing.services import prices

    clock.to("2026-03-10 11:00:00")
    change = clock.now() + timedelta(hours=1)
    prices.set_price(as_staff, meter="train.gpu", unit_price=Decimal(3), valid_from=change)
    clock.to("2026-03-10 11:00:30")
    held = hold(units=8)
    for minute in range(11):  # many beats make the same lines as one
        clock.on(minutes=minute)
        metering.beat(held.pk, fence="f1")
    clock.to("2026-03-10 13:00:00")
    metering.close_allocation(held.pk, fence="f1", reason="done")
    made = invoices.draft(as_ana, tenant, MARCH)
    assert [(line.quantity, line.amount) for line, _parts in made.lines] == [
        (28560, Decimal("19.83")),
        (28800, Decimal("24.00")),
    ]
    assert made.invoice.total == Decimal("43.83")


def test_a_month_end_divides_usage_between_two_invoices(tenant, clock, hold, as_staff):
    clock.to("2026-03-31 23:50:00")
    held = hold(units=4)
    clock.to("2026-04-01 00:20:00")
    metering.close_allocation(held.pk, fence="f1", reason="done")
    assert lines_of(invoices.finalize(as_staff, tenant, MARCH))[0][2] == 2400
    clock.to("2026-05-01 00:00:00")
    assert lines_of(invoices.finalize(as_staff, tenant, APRIL))[0][2] == 4800


def test_a_frozen_invoice_refuses_every_change(tenant, clock, as_staff, used_in_march):
    clock.to("2026-04-01 00:00:01")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    line = invoice.lines.first()

    def insert_line():
        line.pk, line.position = None, 99
        line.save()

    for change in (
        lambda: Invoice.objects.update(total=1),
        lambda: Invoice.objects.filter(pk=invoice.pk).delete(),
        lambda: InvoiceLine.objects.update(amount=1),
        lambda: line.parts.all().delete(),
        lambda: LedgerEntry.objects.update(amount=1),
        lambda: LedgerTransaction.objects.update(key="x"),
        insert_line,
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()
    assert reconcile.check(tenant) == []


def test_the_ledger_refuses_what_does_not_sum_to_zero(tenant, as_staff):
    with pytest.raises(DatabaseError, match="sum to zero"), transaction.atomic():
        ledger.post(tenant, key="x", currency="USD", amounts={AccountKind.RECEIVABLE: Decimal(1)})
        with connection.cursor() as cursor:
            cursor.execute("set constraints all immediate")


def test_books_that_do_not_agree_are_not_finalized(tenant, clock, as_staff, used_in_march):
    from billing.models import UsageDay

    UsageDay.objects.filter(subject="ep_1").update(quantity=1)
    clock.to("2026-04-01 00:00:01")
    with pytest.raises(Conflict, match="do not agree"):
        invoices.finalize(as_staff, tenant, MARCH)
    assert not Invoice.objects.exists()


def test_only_staff_finalize_and_only_those_with_the_right_read(
    tenant, clock, as_ana, as_ben, as_cy, as_staff, used_in_march
):
    clock.to("2026-04-01 00:00:01")
    with pytest.raises(Forbidden):
        invoices.finalize(as_ana, tenant, MARCH)
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert invoices.find(as_ana, invoice.public_id).invoice == invoice
    assert invoices.find(as_staff, invoice.public_id).invoice == invoice
    for actor, refusal in ((as_ben, Hidden), (as_cy, Hidden)):
        with pytest.raises(refusal):
            invoices.find(actor, invoice.public_id)
    draft_id = f"draft-{tenant.public_id}-2026-04"
    assert invoices.find(as_ana, draft_id).invoice.is_draft
    with pytest.raises(Forbidden):
        invoices.find(as_ben, draft_id)
    with pytest.raises(Hidden):
        invoices.find(as_cy, draft_id)


def test_the_invoice_keeps_the_names_of_its_day(tenant, clock, as_staff, as_ana, used_in_march):
    clock.to("2026-04-01 00:00:01")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    type(tenant).objects.filter(pk=tenant.pk).update(name="Renamed")
    assert invoices.find(as_ana, invoice.public_id).invoice.buyer_name == "Lab"


# -- races, on real connections ------------------------------------------------------------------------------


def together(count, act):
    """Run `act(i)` in threads that start at once; returns results and errors."""
    gate, found = threading.Barrier(count), [None] * count

    def run(i):
        gate.wait()
        try:
            found[i] = act(i)
        except Exception as error:
            found[i] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[i]) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return found


@pytest.fixture
def staff_actor(transactional_db):
    from tenants.http import actor_from_user

    return actor_from_user(make_user("staff@example.org", tenant=make_tenant("House"), is_staff=True))


@pytest.mark.django_db(transaction=True)
def test_two_beats_at_once_bill_every_second_once():
    tenant = make_tenant("Lab")
    with transaction.atomic():
        held = metering.open_allocation(
            tenant, meter="train.gpu", sku="standard", units=3, subject="job_1", subject_title="t",
            user_label="", fence="f", lease_s=15,
        )  # fmt: skip
    assert set(together(6, lambda _: metering.beat(held.pk, fence="f"))) == {metering.Verdict.CONTINUE}
    held = held.reload()
    billed = sum(UsageEvent.objects.values_list("quantity", flat=True))
    assert billed == rating.seconds(held.started_at, held.settled_through) * 3
    assert reconcile.check(tenant) == []


@pytest.mark.django_db(transaction=True)
def test_the_same_key_from_many_threads_is_stored_once():
    tenant = make_tenant("Lab")
    found = together(6, lambda _: requests(tenant, 7, "same"))
    assert sorted(found) == [False] * 5 + [True]
    assert reconcile.check(tenant) == []


@pytest.mark.django_db(transaction=True)
def test_two_finalizers_at_once_make_one_invoice(staff_actor):
    tenant = make_tenant("Lab")
    requests(tenant, 1_000, "k")
    month = Month.of(billing_clock.now())
    found = together(
        4,
        lambda _: invoices.finalize(staff_actor, tenant, month, early=True, period_start=month.start),
    )
    assert len({invoice.number for invoice in found}) == 1
    assert Invoice.objects.count() == 1
    assert LedgerTransaction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_usage_that_arrives_while_invoices_are_made_is_billed_exactly_once(staff_actor):
    tenant = make_tenant("Lab")
    requests(tenant, 1_000, "first")
    month = Month.of(billing_clock.now())

    def act(i):
        if i:
            return [requests(tenant, 1_000, f"{i}:{n}") for n in range(8)]
        return [invoices.finalize(staff_actor, tenant, month, early=True).number for _ in range(3)]

    found = together(5, act)
    assert not [one for one in found if isinstance(one, Exception)]
    requests(tenant, 1_000, "last")
    invoices.finalize(staff_actor, tenant, month, early=True)
    billed = sum(InvoiceLine.objects.filter(invoice__tenant=tenant).values_list("quantity", flat=True))
    assert billed == 34 * 1_000
    assert reconcile.check(tenant) == []
    numbers = sorted(Invoice.objects.values_list("number", flat=True))
    assert numbers == [f"INV-{n:06d}" for n in range(1, len(numbers) + 1)]
