"""Pages and API of the ledger: who sees what, and in which shape."""

from __future__ import annotations

import csv
import hashlib
import io
from datetime import timedelta
from decimal import Decimal

import pytest

from billing.models import Invoice, PriceVersion
from billing.months import Month
from billing.services import invoices, metering
from tests.factories import make_user

MARCH = Month(2026, 3)


@pytest.fixture
def spent(tenant, clock, hold):
    held = hold(units=4, subject="job_01canary", subject_title="=canary")
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")


@pytest.fixture
def invoice(spent, tenant, clock, as_staff):
    clock.to("2026-04-01 00:00:01")
    return invoices.finalize(as_staff, tenant, MARCH)


def read(response):
    return b"".join(response.streaming_content).decode()


def test_the_usage_page_shows_spend_budget_and_what_it_was_spent_on(spent, browser_of, ana):
    browser = browser_of(ana)
    page = browser.get("/usage/").content.decode()
    assert "$10.00" in page
    assert 'href="/jobs/job_01canary"' in page
    assert browser.post("/usage/budget", {"amount": "40", "mode": "stop"}).status_code == 302
    assert "$10.00 of $40.00 (25 %)" in browser.get("/usage/").content.decode()
    refused = browser.post("/usage/budget", {"amount": "-4", "mode": "stop"})
    assert refused.status_code == 422
    assert browser.post("/usage/budget/remove").status_code == 302
    assert "25 %" not in browser.get("/usage/").content.decode()


def test_the_usage_page_of_another_month_is_empty_and_nonsense_is_not_found(spent, browser_of, ana):
    browser = browser_of(ana)
    assert "Nothing was used in this month" in browser.get("/usage/?month=2026-02").content.decode()
    assert browser.get("/usage/?month=2026-99").status_code == 404


def test_a_member_sees_usage_but_neither_sets_budgets_nor_reads_invoices(spent, browser_of, ben):
    browser = browser_of(ben)
    page = browser.get("/usage/")
    assert page.status_code == 200 and 'action="/usage/budget"' not in page.content.decode()
    assert browser.post("/usage/budget", {"amount": "40", "mode": "stop"}).status_code == 403
    assert browser.get("/invoices/").status_code == 403


def test_a_viewer_sees_no_money(tenant, spent, browser_of):
    browser = browser_of(make_user("eve@example.org", tenant=tenant, role="viewer"))
    assert browser.get("/usage/").status_code == browser.get("/usage.csv").status_code == 403


def test_a_stranger_sees_nothing_of_another_tenant(invoice, tenant, browser_of, api_of, cy):
    browser, api = browser_of(cy), api_of(cy)
    draft = f"draft-{tenant.public_id}-2026-03"
    for shown in (invoice.public_id, draft):
        assert browser.get(f"/invoices/{shown}").status_code == 404
        assert browser.get(f"/invoices/{shown}/pdf").status_code == 404
        assert browser.post(f"/invoices/{shown}/finalize").status_code == 404
        assert api.get(f"/api/v1/invoices/{shown}").status_code == 404
        assert api.post(f"/api/v1/invoices/{shown}/finalize", {"nonsense": 1}).status_code == 404
    assert "canary" not in browser.get("/usage/").content.decode()
    assert "canary" not in read(browser.get("/usage.csv"))
    assert api.get("/api/v1/invoices").json()["data"] == []
    for path in ("/reports/", "/reports/explorer.csv", "/reports/focus.csv", "/reports/finance"):
        assert browser.get(path).status_code == 403


def test_the_usage_csv_is_exact_and_safe(spent, browser_of, ana):
    response = browser_of(ana).get("/usage.csv?month=2026-03")
    assert "attachment" in response["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(read(response)))
    assert row["title"] == "'=canary"
    assert (row["quantity"], row["price_quantity"], row["price_unit"]) == ("14400", "4", "GPU-hour")
    assert (row["cost"], row["currency"]) == ("10", "USD")


def test_a_draft_page_lets_staff_close_the_month_and_nobody_else(spent, tenant, browser_of, ana, staff):
    draft = f"draft-{tenant.public_id}-2026-03"
    page = browser_of(ana).get(f"/invoices/{draft}").content.decode()
    assert "$10.00" in page and "finalize" not in page
    assert browser_of(ana).post(f"/invoices/{draft}/finalize").status_code == 403
    assert "Close now and finalize" in browser_of(staff).get(f"/invoices/{draft}").content.decode()
    for nonsense in ("2026-13-99T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        wrong = browser_of(staff).post(f"/invoices/{draft}/finalize", {"period_start": nonsense})
        assert wrong.status_code == 422
    not_yet = browser_of(staff).post(f"/invoices/{draft}/finalize", follow=True)
    assert "close it early" in not_yet.content.decode()
    done = browser_of(staff).post(f"/invoices/{draft}/finalize", {"early": "yes"}, follow=True)
    assert "INV-000001" in done.content.decode()
    assert Invoice.objects.get().number == "INV-000001"


def test_the_address_of_a_draft_leads_to_the_invoice_it_became(invoice, tenant, browser_of, ana):
    response = browser_of(ana).get(f"/invoices/draft-{tenant.public_id}-2026-03")
    assert response["Location"] == f"/invoices/{invoice.public_id}"


def test_an_invoice_has_a_page_and_a_pdf_that_never_changes(invoice, browser_of, ana):
    browser = browser_of(ana)
    assert "INV-000001" in browser.get("/invoices/").content.decode()
    page = browser.get(f"/invoices/{invoice.public_id}").content.decode()
    assert "INV-000001" in page and invoice.content_hash in page
    first, again = (browser.get(f"/invoices/{invoice.public_id}/pdf") for _ in range(2))
    assert first["Content-Type"] == "application/pdf" and first.content.startswith(b"%PDF")
    assert hashlib.sha256(first.content).digest() == hashlib.sha256(again.content).digest()


def test_a_pdf_takes_chinese_names(tenant, spent, clock, as_staff, browser_of, ana):
    type(tenant).objects.filter(pk=tenant.pk).update(name="示例实验室 <b>&")
    clock.to("2026-04-01 00:00:01")
    made = invoices.finalize(as_staff, type(tenant).objects.get(pk=tenant.pk), MARCH)
    assert browser_of(ana).get(f"/invoices/{made.public_id}/pdf").content.startswith(b"%PDF")


def test_the_explorer_shows_everybodys_costs_to_staff(spent, browser_of, staff):
    browser = browser_of(staff)
    page = browser.get("/reports/explorer?start=2026-03-01&end=2026-04-01&by=subject").content.decode()
    assert "job_01canary" in page and "$10.00" in page and "<svg" in page
    days = browser.get("/reports/explorer?start=2026-03-10&end=2026-03-12&by=day").content.decode()
    assert ">10 Mar 2026<" in days and ">10 Mar<" in days and "11 Mar 2026, UTC" in days
    assert browser.get("/reports/explorer?start=2026-04-01&end=2026-03-01").status_code == 422
    assert browser.get("/reports/explorer?start=yesterday").status_code == 422
    query = "?start=2026-03-01&end=2026-04-01&by=tenant&then=meter"
    (row,) = csv.DictReader(io.StringIO(read(browser.get(f"/reports/explorer.csv{query}"))))
    assert (row["tenant_label"], row["meter"], row["cost"], row["to"]) == (
        "Lab",
        "train.gpu",
        "10",
        "2026-04-01",
    )
    assert (row["quantity"], row["unit"], row["complete"]) == ("4", "GPU-hour", "yes")


def test_the_same_pages_show_a_tenant_its_own(spent, browser_of, ana, cy):
    query = "?start=2026-03-01&end=2026-04-01&by=subject"
    for page in ("/usage/overview", f"/usage/explorer{query}", "/usage/costs/job_01canary"):
        assert "=canary" in browser_of(ana).get(page).content.decode(), page
        assert "canary" not in browser_of(cy).get(page).content.decode().replace("job_01canary", "")
    assert browser_of(cy).get("/usage/costs/job_01canary").status_code == 404
    csv_text = read(browser_of(ana).get(f"/usage/explorer.csv{query}"))
    assert "'=canary" in csv_text
    assert "canary" not in read(browser_of(cy).get(f"/usage/explorer.csv{query}"))


def test_the_overview_of_staff_shows_the_books_and_the_tops(spent, browser_of, staff):
    page = browser_of(staff).get("/reports/").content.decode()
    for words in (
        "This month so far",
        "$10.00",
        "Burning now",
        "No account is parked",
        "By tenant",
        "By SKU",
        "<svg",
    ):
        assert words in page, words


def test_a_page_says_when_its_numbers_are_not_complete(tenant, clock, hold, browser_of, staff, ana):
    hold(subject="job_1")
    clock.on(hours=1)  # nobody beats
    for user, page in ((staff, "/reports/"), (staff, "/reports/explorer"), (ana, "/usage/overview")):
        text = browser_of(user).get(page).content.decode()
        assert "These numbers are not complete" in text and "silent" in text
    explorer = browser_of(staff).get("/reports/explorer").content.decode()
    assert "At least" in explorer


def test_the_api_tells_usage_meters_and_prices(spent, api_of, ana):
    api = api_of(ana)
    usage = api.get("/api/v1/usage?month=2026-03").json()
    assert (usage["total"], usage["currency"]) == ("10", "USD")
    assert usage["by_subject"] == [{"subject": "job_01canary", "title": "=canary", "cost": "10"}]
    assert {day["day"]: day["cost"] for day in usage["by_day"]}["2026-03-10"] == "10"
    assert [one["key"] for one in api.get("/api/v1/meters").json()["data"]] == [
        "endpoint.replica", "endpoint.requests", "predict.process", "predict.rows", "storage", "train.gpu",
        "train.process",
    ]  # fmt: skip
    prices = {one["meter"]: one["unit_price"] for one in api.get("/api/v1/prices").json()["data"]}
    assert prices == {
        "train.process": "0.06", "train.gpu": "2.5", "storage": "0.04", "endpoint.requests": "0.02",
        "endpoint.replica": "0.01", "predict.process": "0.06", "predict.rows": "0.1",
    }  # fmt: skip


def test_errors_of_the_api_are_problems(spent, api_of, ana, ben):
    bad = api_of(ana).get("/api/v1/usage?month=soon")
    assert (bad.status_code, bad["Content-Type"]) == (422, "application/problem+json")
    assert bad.json()["errors"][0]["pointer"] == "/month"
    assert api_of(ben).get("/api/v1/invoices").status_code == 403
    assert api_of(ana).get("/api/v1/reports/costs?from=2026-03-01&to=2026-04-01").status_code == 403
    assert api_of(ana, scopes=["jobs:read"]).get("/api/v1/usage").status_code == 403


def test_the_api_shows_finalizes_and_repeats(spent, tenant, clock, api_of, ana, staff):
    draft = api_of(ana).get("/api/v1/invoices/current").json()
    assert (draft["status"], draft["number"], draft["total"]) == ("draft", None, "10.00")
    assert draft["lines"][0]["parts"][0]["subject"] == "job_01canary"
    path = f"/api/v1/invoices/{draft['id']}/finalize"
    assert api_of(ana).post(path, {"early": True}).status_code == 403
    refused = api_of(staff).post(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_yet")
    assert api_of(staff).post(path, {"erly": True}).status_code == 422
    body = {"early": True, "period_start": draft["period_start"]}
    made = api_of(staff).post(path, body).json()
    clock.on(minutes=1)
    assert api_of(staff).post(path, body).json()["id"] == made["id"]
    assert (made["number"], made["total"], made["lines"][0]["amount"]) == ("INV-000001", "10.00", "10.00")
    assert [one["id"] for one in api_of(ana).get("/api/v1/invoices").json()["data"]] == [made["id"]]


def test_the_api_reports_are_exact(spent, api_of, staff, ana, ben):
    path = "/api/v1/reports/costs?from=2026-03-01&to=2026-04-01&by=tenant&then=meter"
    found = api_of(staff).get(path).json()
    (row,) = found["rows"]
    assert found["total"] == {"list": "10", "net": "10", "credits": "0", "tax": "0"}
    assert [one["label"] for one in row["groups"]] == ["Lab", "Training GPUs"]
    assert (row["quantity"], row["unit"], row["net"]) == ("4", "GPU-hour", "10")
    assert (found["from"], found["to"], found["by"]) == ("2026-03-01", "2026-04-01", ["tenant", "meter"])
    assert found["completeness"]["complete"] is True
    bad = api_of(staff).get("/api/v1/reports/costs?from=x&to=2026-04-01&by=moon")
    assert {fault["pointer"] for fault in bad.json()["errors"]} == {"/from", "/by"}
    mine = api_of(ana).get("/api/v1/usage/costs?from=2026-03-01&to=2026-04-01&by=subject").json()
    assert mine["rows"][0]["groups"][0]["key"] == "job_01canary"
    overview = api_of(ben).get("/api/v1/usage/overview").json()
    assert (overview["spent"], overview["owed"], overview["unbilled_unit_seconds"]) == ("10", None, 0)
    assert api_of(ben).get("/api/v1/usage/finance").status_code == 403
    assert api_of(ana).get("/api/v1/usage/finance").json()["owed"] == "0"
    for page in ("overview", "costs", "finance"):
        assert api_of(ana).get(f"/api/v1/reports/{page}").status_code == 403


def test_prices_are_added_in_the_admin_and_never_changed(clock, browser_of, as_staff, staff):
    staff.is_superuser = True
    staff.save()
    browser = browser_of(staff)
    assert browser.get("/admin/billing/priceversion/").status_code == 200
    at = clock.now() + timedelta(hours=1)
    body = {"meter": "train.gpu", "sku": "standard", "unit_price": "3", "valid_from_0": f"{at:%Y-%m-%d}",
            "valid_from_1": f"{at:%H:%M:%S}"}  # fmt: skip
    assert browser.post("/admin/billing/priceversion/add/", body).status_code == 302
    old, new = PriceVersion.objects.filter(meter="train.gpu").order_by("valid_from")
    assert old.valid_to == new.valid_from == at and new.unit_price == Decimal(3)
    assert browser.post(f"/admin/billing/priceversion/{new.pk}/delete/", {"post": "yes"}).status_code == 403
    late = {**body, "valid_from_0": "2020-01-01"}
    assert (
        "A price starts now or later"
        in browser.post("/admin/billing/priceversion/add/", late).content.decode()
    )
