"""The overview keeps the tenant's own months, and staff see who issued a credit note."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest

from billing.months import Calendar, Month
from billing.services import accounts, notes, overview, scopes
from billing.services.metering import record_usage


def use(tenant, quantity, key):
    record_usage(
        tenant, meter="endpoint.requests", quantity=quantity, source="g", key=key, subject="ep_1", subject_title="x"
    )  # fmt: skip


def spent(actor):
    found = overview.overview(scopes.own(actor), with_invoices=False)
    return found.month, found.spent, found.before


def test_the_overview_begins_where_the_accounts_month_does(tenant, clock, as_staff, as_ana, browser_of, ana):
    """Months from the 15th, midnight in New York: four hours into the UTC day in summer."""
    accounts.change_account(as_staff, tenant, zone="America/New_York", anchor_day=15)
    for moment, quantity, key in (
        ("2026-06-15 03:59:00", 50_000, "the month before: 1.00"),
        ("2026-06-15 04:00:00", 100_000, "its first instant: 2.00"),
        ("2026-06-20 12:00:00", 150_000, "inside: 3.00"),
        ("2026-07-01 00:00:00", 200_000, "another UTC month: 4.00"),
    ):
        clock.to(moment)
        use(tenant, quantity, key)
    clock.to("2026-07-02 00:00:00")
    assert spent(as_ana) == (Month(2026, 6), Decimal(9), Decimal(0))
    page = browser_of(ana).get("/usage/overview").content.decode()
    assert "15 Jun 2026" in page and "America/New_York" in page
    clock.to("2026-07-15 03:59:59")
    assert spent(as_ana)[:2] == (Month(2026, 6), Decimal(9))
    clock.to("2026-07-15 04:00:00")
    month, now, before = spent(as_ana)
    assert (month, now, before) == (Month(2026, 7), 0, 0)
    clock.to("2026-07-16 04:00:00")
    assert spent(as_ana) == (Month(2026, 7), Decimal(0), Decimal(2))  # the same first day, a month before
    clock.to("2026-08-14 04:00:00")
    assert spent(as_ana)[2] == Decimal(9)


def test_the_forecast_runs_to_the_end_of_the_accounts_month(tenant, clock, as_staff, as_ana):
    accounts.change_account(as_staff, tenant, anchor_day=11)
    clock.to("2026-03-09 00:00:00")
    use(tenant, 50_000, "a")  # 1.00 a day, over the day there was
    clock.to("2026-03-10 00:00:00")
    found = overview.overview(scopes.own(as_ana), with_invoices=False)
    assert (found.month, found.spent, found.forecast) == (Month(2026, 2), Decimal(1), Decimal(2))


def test_staff_see_everybody_by_utc_months_and_nobody_is_told_of_a_usual_calendar(
    tenant, clock, as_staff, browser_of, ana
):
    accounts.change_account(as_staff, tenant, zone="America/New_York", anchor_day=15)
    assert overview.overview(scopes.everybody(as_staff), with_invoices=True).calendar == Calendar()
    one = overview.overview(scopes.everybody(as_staff, tenant=tenant.public_id), with_invoices=True)
    assert one.calendar.anchor == 15
    accounts.change_account(as_staff, tenant, zone="UTC", anchor_day=1)
    assert "The month began" not in browser_of(ana).get("/usage/overview").content.decode()


@pytest.fixture
def note(invoice, as_staff):
    return notes.issue_note(
        as_staff, invoice, amounts={1: Decimal("2.50")}, reason="outage on the 3rd", rest="credit", key="k"
    )


def test_staff_see_why_and_by_whom_a_note_was_issued_and_tenants_see_why(note, browser_of, staff, ana, clock):
    assert notes.issuers([note]) == {note.public_id: staff.email}
    assert notes.issuers([]) == {}
    page, span = f"/invoices/notes/{note.public_id}", {"start": "2026-01-01", "end": "2027-01-01"}
    for address in (page, "/reports/finance"):
        shown = browser_of(staff).get(address, span).content.decode()
        assert "outage on the 3rd" in shown and f"· {staff.email}" in shown.replace("<br>", "· "), address
    for address in (page, "/usage/finance"):
        shown = browser_of(ana).get(address, span).content.decode()
        assert "outage on the 3rd" in shown and staff.email not in shown, address
    for who, address, name in ((staff, "/reports/finance.csv", staff.email), (ana, "/usage/finance.csv", "")):
        text = b"".join(browser_of(who).get(address, span).streaming_content).decode("utf-8-sig")
        last = list(csv.DictReader(io.StringIO(text)))[-1]
        assert (last["number"], last["reason"], last["issued_by"]) == (note.number, "outage on the 3rd", name)
