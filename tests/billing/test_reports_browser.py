"""The cost explorer as a person uses it: choose, look, follow a row, read the same numbers as a table."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from billing.services import ingest
from tenants.models import Tenant

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.browser]


def test_costs_are_grouped_charted_followed_and_downloaded(page: Page, tenant: Tenant) -> None:
    events = [
        {"key": f"k{n}", "meter": "train.gpu", "quantity": 3600 * (n + 1), "subject": f"job_{n}",
         "subject_title": f"Run {n}", "labels": {"team": "vision" if n else "speech"}}
        for n in range(3)
    ]  # fmt: skip
    ingest.record_batch(tenant, source="t", events=events)
    page.goto("/usage/overview")
    page.get_by_role("link", name="Explorer").click()
    page.select_option("select[name=by]", "subject")
    page.select_option("select[name=then]", "meter")
    page.get_by_role("button", name="Show", exact=True).click()
    rows = page.get_by_role("region", name="By job or endpoint, then meter").get_by_role("row")
    expect(rows).to_have_count(5)  # head, three jobs, total
    expect(rows.nth(1)).to_contain_text("Run 2")
    expect(rows.nth(1)).to_contain_text("$7.50")
    expect(rows.last).to_contain_text("$15.00")
    expect(page.get_by_role("img", name="Cost per day")).to_be_visible()
    page.get_by_text("Show as table").click()
    expect(page.get_by_role("region", name="Cost per day")).to_contain_text("$7.50")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="CSV").click()
    assert "Run 2" in waiting.value.path().read_text()

    page.select_option("select[name=by]", "label")
    page.select_option("select[name=then]", "")
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_role("link", name="speech").click()
    expect(page.get_by_role("link", name="Take away the filter team=speech")).to_be_visible()
    page.get_by_role("link", name="Run 0").click()
    expect(page.get_by_role("heading", name="Cost of Run 0")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    for address in ("/usage/overview", "/usage/explorer", "/usage/finance", "/usage/budgets"):
        page.goto(address)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"), address
