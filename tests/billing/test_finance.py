"""The finance page and the files agree with the documents they are made from."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from billing import money
from billing.models import CostRate, TaxRate
from billing.months import Month
from billing.services import accounts, credits, exports, finance, invoices, metering, scopes
from billing.services.explorer import Question
from billing.services.metering import record_usage

MARCH = Month(2026, 3)
YEAR = (date(2026, 1, 1), date(2027, 1, 1))


def use(tenant, quantity, key, *, meter="endpoint.requests", subject="ep_1", **fields):
    return record_usage(
        tenant, meter=meter, quantity=quantity, source="g", key=key, subject=subject, subject_title=subject, **fields
    )  # fmt: skip


@pytest.fixture
def invoiced(tenant, clock, as_staff, hold):
    """March: 4 GPU-hours and 5,001 requests at 20 % tax, 5.00 of promotional credit; invoiced on April 1st."""
    accounts.change_account(as_staff, tenant, tax_region="DE", terms_days=14)
    TaxRate.objects.create(region="DE", title="VAT", percent=20, valid_from=datetime(2020, 1, 1, tzinfo=UTC))
    clock.to("2026-03-01 00:00:00")
    credits.grant_credit(as_staff, tenant, amount=Decimal(5), kind="promo", key="hello", note="Hello")
    held = hold(units=4)
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    use(tenant, 5_001, "march")
    clock.to("2026-04-01 02:00:00")
    return invoices.finalize(as_staff, tenant, MARCH)


def everything(actor, **more):
    return finance.finance(scopes.everybody(actor, **more), *YEAR)


def test_the_register_says_what_is_left_and_since_when(invoiced, clock, as_staff):
    found = everything(as_staff)
    (one,) = found.invoices
    assert (one.invoice.number, one.left, one.overdue_days) == ("INV-000001", invoiced.due, 0)
    assert found.net == invoiced.net == Decimal("10.10")
    for days, bucket in ((14, "not_due"), (15, "d30"), (44, "d30"), (45, "d60"), (75, "d90"), (105, "older")):
        clock.moment = invoiced.finalized_at + timedelta(days=days)
        aging = everything(as_staff).aging
        assert aging[bucket] == (1, invoiced.due), (days, aging)
        assert money.total([amount for _count, amount in aging.values()]) == invoiced.due
    assert everything(as_staff).overdue == invoiced.due


def test_tax_and_credit_are_those_of_the_documents(invoiced, as_staff):
    found = everything(as_staff)
    (tax,) = found.taxes
    assert (tax.title, tax.taxable, tax.amount) == ("VAT", Decimal("10.10"), Decimal("2.02"))
    credit = found.credit
    assert (credit.opening, credit.given, credit.used, credit.closing) == (0, 5, 5, 0)
    later = finance.finance(scopes.everybody(as_staff), date(2026, 3, 15), date(2026, 4, 1)).credit
    assert (later.opening, later.used, later.closing) == (5, 0, 5)


def test_the_margin_is_not_known_until_every_meter_has_a_cost_rate(invoiced, as_staff):
    found = everything(as_staff)
    assert found.margin is None and {one.key: one.cost for one in found.streams} == {
        "training": None,
        "inference": None,
    }
    rate = {"currency": "USD", "valid_from": datetime(2020, 1, 1, tzinfo=UTC)}
    CostRate.objects.create(meter_id="train.gpu", unit_cost=Decimal("1.5"), **rate)
    assert everything(as_staff).margin is None  # a part of the cost would look like profit
    CostRate.objects.create(meter_id="endpoint.requests", unit_cost=Decimal("0.01"), **rate)
    found = everything(as_staff)
    training = next(one for one in found.streams if one.key == "training")
    assert (training.net, training.cost, training.margin) == (Decimal(10), Decimal(6), Decimal(4))
    assert found.revenue == Decimal("10.10")
    CostRate.objects.create(
        meter_id="train.gpu",
        unit_cost=Decimal(9),
        currency="USD",
        valid_from=datetime(2026, 4, 1, tzinfo=UTC),
    )
    assert next(one.cost for one in everything(as_staff).streams if one.key == "training") == 6  # of its time


def test_a_tenants_finance_page_holds_its_own_documents_and_not_our_costs(invoiced, browser_of, ana, cy, ben):
    page = browser_of(ana).get("/usage/finance?start=2026-01-01&end=2027-01-01").content.decode()
    assert "INV-000001" in page and "Cost to us" not in page and "Margin" not in page
    assert (
        "INV-000001"
        not in browser_of(cy).get("/usage/finance?start=2026-01-01&end=2027-01-01").content.decode()
    )
    assert browser_of(ben).get("/usage/finance").status_code == 403
    assert browser_of(ana).get("/usage/finance?start=soon").status_code == 422


def test_the_register_as_a_file_sums_to_the_page(invoiced, browser_of, staff):
    response = browser_of(staff).get("/reports/finance.csv?start=2026-01-01&end=2027-01-01")
    (row,) = csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode()))
    assert (row["number"], row["net"], row["tax"], row["total"]) == ("INV-000001", "10.1", "2.02", "12.12")
    assert (row["credit"], row["left"], row["content_hash"]) == ("5", "7.12", invoiced.content_hash)


def focus(actor, start=date(2026, 3, 1), end=date(2026, 4, 1), **filters):
    question = Question(start=start, end=end, **filters)
    rows = exports.focus_rows(scopes.everybody(actor), question)
    return [dict(zip(exports.FOCUS, row, strict=True)) for row in rows]


def test_a_months_focus_file_adds_up_to_its_invoice(invoiced, as_staff):
    rows = focus(as_staff)
    billed = money.total([row["BilledCost"] for row in rows if row["ChargeCategory"] != "Credit"])
    assert billed == invoiced.total == Decimal("12.12")
    assert money.total([row["BilledCost"] for row in rows]) == invoiced.due == Decimal("7.12")
    kinds = [row["ChargeCategory"] for row in rows]
    assert sorted(set(kinds)) == ["Adjustment", "Credit", "Tax", "Usage"]
    usage = next(row for row in rows if row["SkuId"] == "train.gpu/standard")
    assert (usage["ConsumedQuantity"], usage["ConsumedUnit"]) == (Decimal(14400), "GPU-second")
    assert (usage["PricingQuantity"], usage["PricingUnit"], usage["ListUnitPrice"]) == (
        4,
        "GPU-hour",
        Decimal("2.5"),
    )
    assert (usage["ChargePeriodEnd"] - usage["ChargePeriodStart"]) == timedelta(hours=1)
    assert usage["BillingPeriodStart"] == MARCH.start and usage["BillingPeriodEnd"] == MARCH.end
    assert usage["ResourceId"] == "job_1" and usage["x_Complete"] == "yes"


def test_late_usage_is_a_correction_and_only_the_late_part(invoiced, tenant, clock, as_staff):
    use(tenant, 999, "late", event_time=datetime(2026, 3, 1, 1, 0, tzinfo=UTC))  # the hour of the 5,001
    rows = focus(as_staff, meter="endpoint.requests")
    assert [(row["ConsumedQuantity"], row["ChargeClass"]) for row in rows] == [
        (5001, None),
        (999, "Correction"),
    ]
    assert {row["ChargeCategory"] for row in rows} == {"Usage"}  # a filter leaves documents out


def test_a_focus_file_streams_through_the_page_and_is_safe_to_open(tenant, clock, browser_of, ana, cy):
    use(tenant, 5, "k", subject="ep_1")
    record_usage(
        tenant,
        meter="endpoint.requests",
        quantity=1,
        source="g",
        key="k2",
        subject="ep_2",
        subject_title="=1+1",
    )
    response = browser_of(ana).get("/usage/focus.csv?start=2026-03-01&end=2026-04-01")
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))
    assert [row["ResourceName"] for row in rows] == ["ep_1", "'=1+1"]
    assert rows[0]["ChargePeriodStart"] == "2026-03-10T12:00:00+00:00" and rows[0]["BilledCost"] == "0.0001"
    theirs = browser_of(cy).get("/usage/focus.csv?start=2026-03-01&end=2026-04-01")
    assert len(b"".join(theirs.streaming_content).decode().splitlines()) == 1


def test_staff_set_cost_rates_in_the_site_administration_and_nobody_else(invoiced, browser_of, staff, ana):
    staff.is_superuser = True
    staff.save()
    body = {"meter": "train.gpu", "sku": "standard", "currency": "USD", "unit_cost": "1.5",
            "valid_from_0": "2026-01-01", "valid_from_1": "00:00:00"}  # fmt: skip
    assert browser_of(ana).post("/admin/billing/costrate/add/", body).status_code == 302
    assert not CostRate.objects.exists()
    assert browser_of(staff).post("/admin/billing/costrate/add/", body).status_code == 302
    assert CostRate.objects.get().unit_cost == Decimal("1.5")
    page = browser_of(staff).get("/reports/finance?start=2026-01-01&end=2027-01-01").content.decode()
    assert "No cost rate: endpoint.requests/standard" in page and "40.0 %" in page
