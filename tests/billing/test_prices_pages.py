"""Prices with tiers and tax rates on pages of their own: what they come to, what is refused, who may."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing.models import PriceVersion, TaxRate
from billing.services import accounts, prices, taxes
from tenants.errors import Conflict, Forbidden, Invalid
from tenants.models import AuditEntry

PRICES, PREVIEW, TAXES = "/reports/prices", "/reports/prices/preview", "/reports/taxes"


def tiers(*rows):
    """Form fields of (up to, price, flat) rows."""
    names = ("up_to", "price", "flat")
    return {
        f"tier_{n}_{name}": one for n, row in enumerate(rows, 1) for name, one in zip(names, row, strict=True)
    }


def price(**changes):
    return {
        "meter": "train.gpu", "sku": "h100", "plan": "standard", "currency": "usd", "model": "unit",
        "unit_price": "3", "included": "", "minimum": "", "maximum": "", "valid_from": "", **changes,
    }  # fmt: skip


STEPS = tiers(("100", "3", ""), ("", "2", "5"))


@pytest.fixture
def staff_client(browser_of, staff, clock):
    return browser_of(staff)


@pytest.mark.parametrize(
    ("changes", "amounts"),
    [
        ({}, ["$3.00", "$300.00", "$30,000.00"]),
        ({"model": "graduated", **STEPS}, ["$3.00", "$300.00", "$20,105.00"]),
        ({"model": "volume", **STEPS}, ["$3.00", "$300.00", "$20,005.00"]),
        ({"model": "package"}, ["$3.00", "$300.00", "$30,000.00"]),
        ({"included": "99"}, ["$0.00", "$3.00", "$29,703.00"]),
        ({"minimum": "50", "maximum": "1000"}, ["$50.00", "$300.00", "$1,000.00"]),
        ({"currency": "JPY", "unit_price": "0.5"}, ["¥1", "¥50", "¥5,000"]),
    ],
)
def test_the_preview_says_what_one_a_hundred_and_ten_thousand_units_cost(staff_client, changes, amounts):
    page = staff_client.post(PREVIEW, price(**changes)).content.decode()
    assert "<html" not in page and "10,000" in page
    for amount in amounts:
        assert f"<dd>{amount}</dd>" in page, page


def test_the_preview_is_what_an_invoice_would_say(staff_client, clock, tenant, as_staff, hold):
    """A price set as previewed bills what was previewed."""
    from billing.months import Month
    from billing.services import invoices, metering

    assert staff_client.post(PRICES, price(model="graduated", **STEPS)).url == PRICES
    version = PriceVersion.objects.get(sku="h100")
    assert (version.model, version.unit_price, version.currency) == ("graduated", 3, "USD")
    assert version.tiers == [
        {"up_to": "100", "unit_price": "3", "flat": "0"},
        {"up_to": None, "unit_price": "2", "flat": "5"},
    ]
    held = hold(units=1000, sku="h100")
    clock.on(hours=10)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.to("2026-04-01 02:00:00")
    assert invoices.finalize(as_staff, tenant, Month(2026, 3)).net == Decimal("20105.00")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit_price": ""}, "Say what a natural unit costs"),
        ({"unit_price": "-1"}, "greater than or equal to 0"),
        ({"unit_price": "0.000000001"}, "8 decimal places"),
        ({"unit_price": "NaN"}, "Enter a number"),
        ({"meter": "nothing"}, "Select a valid choice"),
        ({"meter": "train\0gpu"}, "Select a valid choice"),
        ({"sku": "a\0b"}, "Null characters"),
        ({"currency": "U$D"}, "three letters"),
        ({"model": "graduated"}, "The last tier has no end"),
        ({"model": "graduated", **tiers(("100", "3", ""))}, "The last tier has no end"),
        ({"model": "volume", **tiers(("100", "3", ""), ("50", "2", ""), ("", "1", ""))}, "Tier 2 ends after"),
        ({"model": "volume", **tiers(("", "3", ""), ("50", "2", ""))}, "Tier 2 ends after"),
        ({"model": "volume", **tiers(("100", "", ""), ("", "1", ""))}, "Tier 1 needs a price"),
        ({"minimum": "5", "maximum": "4"}, "not below the least"),
        ({"minimum": "5.001"}, "own places"),
        ({"valid_from": "2026-03-01T00:00"}, "now or later"),
    ],
)
def test_what_is_no_price_is_refused_and_nothing_changes(staff_client, changes, words):
    before = PriceVersion.objects.count()
    answer = staff_client.post(PRICES, price(**changes))
    assert answer.status_code == 422 and words in answer.content.decode()
    assert PriceVersion.objects.count() == before
    assert staff_client.post(PREVIEW, price(**changes)).status_code == 200


def test_a_dated_price_follows_the_one_before_and_is_listed_as_later(staff_client, clock):
    assert staff_client.post(PRICES, price(unit_price="3")).status_code == 302
    assert staff_client.post(PRICES, price(unit_price="4", valid_from="2026-05-01T00:00")).status_code == 302
    first, second = PriceVersion.objects.filter(sku="h100").order_by("valid_from")
    assert first.valid_to == second.valid_from and second.valid_to is None
    page = staff_client.get(PRICES).content.decode()
    assert "$3.00" in page and "$4.00" in page and "later" in page
    again = staff_client.post(PRICES, price(unit_price="5", valid_from="2026-04-01T00:00"))
    assert again.status_code == 422 and "already set" in again.content.decode()


def test_prices_and_taxes_are_for_those_who_manage_them(browser_of, ana, as_ana, clock):
    for address in (PRICES, PREVIEW, TAXES):
        assert browser_of(ana).get(address).status_code == 403
        assert browser_of(ana).post(address, price()).status_code == 403
    with pytest.raises(Forbidden):
        taxes.set_rate(as_ana, region="DE", title="VAT", percent=Decimal(19))
    assert not TaxRate.objects.exists() and not PriceVersion.objects.filter(sku="h100").exists()


def tax(**changes):
    return {
        "region": "DE", "category": "standard", "title": "VAT", "percent": "19", "valid_from": "", **changes
    }  # fmt: skip


def test_a_rate_ends_where_the_next_begins_and_an_invoice_takes_the_one_of_its_time(
    staff_client, clock, tenant, as_staff
):
    accounts.change_account(as_staff, tenant, tax_region="DE")
    account = accounts.of(tenant)
    assert (
        staff_client.post(TAXES, tax(percent="16", valid_from="2020-07-01T00:00")).url == TAXES
    )  # the first may be old
    assert staff_client.post(TAXES, tax(percent="19", valid_from="2026-04-01T00:00")).status_code == 302
    old, new = TaxRate.objects.order_by("valid_from")
    assert (old.percent, old.valid_to, new.percent, new.valid_to) == (16, new.valid_from, 19, None)
    for moment, percent in (
        (clock.now(), 16),
        (new.valid_from - timedelta(seconds=1), 16),
        (new.valid_from, 19),
    ):
        assert accounts.tax_rate(account, "standard", moment).percent == percent
    page = staff_client.get(TAXES).content.decode()
    assert all(word in page for word in ("In force", "Later", "16", "19", "2020"))
    entry = AuditEntry.objects.filter(action="tax.set").latest("at")
    assert (entry.details["region"], entry.details["percent"]) == ("DE", "19")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"percent": "101"}, "less than or equal to 100"),
        ({"percent": "-1"}, "greater than or equal to 0"),
        ({"percent": "1.23456"}, "4 decimal places"),
        ({"percent": "Infinity"}, "Enter a number"),
        ({"region": ""}, "This field is required"),
        ({"region": "D\x00E"}, "Null characters"),
        ({"valid_from": "2026-03-01T00:00"}, "now or later"),
        ({"valid_from": "soon"}, "Enter a valid date/time"),
    ],
)
def test_what_is_no_rate_is_refused_and_nothing_changes(staff_client, as_staff, changes, words):
    taxes.set_rate(as_staff, region="DE", title="VAT", percent=Decimal(19))
    answer = staff_client.post(TAXES, tax(**changes))
    assert answer.status_code == 422 and words in answer.content.decode()
    assert TaxRate.objects.count() == 1


def test_a_rate_never_goes_back_behind_one_that_is_set(clock, as_staff):
    taxes.set_rate(
        as_staff, region="DE", title="VAT", percent=Decimal(19), valid_from=clock.now() + timedelta(days=9)
    )
    with pytest.raises(Conflict, match="already set"):
        taxes.set_rate(
            as_staff,
            region="DE",
            title="VAT",
            percent=Decimal(20),
            valid_from=clock.now() + timedelta(days=8),
        )
    taxes.set_rate(as_staff, region="DE", category="books", title="VAT", percent=Decimal(7))
    taxes.set_rate(as_staff, region="AT", title="USt", percent=Decimal(20))
    assert TaxRate.objects.count() == 3
    with pytest.raises(Invalid):
        taxes.set_rate(as_staff, region="AT", title="USt", percent=Decimal("NaN"))


def test_preview_and_price_refuse_the_same(as_staff, clock):
    bad = {"unit_price": Decimal(1), "currency": "USD", "model": "galaxy"}
    with pytest.raises(Invalid):
        prices.preview([1], natural_size=Decimal(3600), **bad)
    with pytest.raises(Invalid):
        prices.set_price(as_staff, meter="train.gpu", sku="h100", **bad)
