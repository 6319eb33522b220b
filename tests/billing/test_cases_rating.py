"""Worked examples of rating: the numbers an accountant would get by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.db import DatabaseError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import money, rating, tariffs
from billing.models import CreditGrant, InvoiceTax, Meter, PriceVersion, TaxRate, UsageEvent
from billing.months import Calendar, Month
from billing.services import accounts, documents, invoices, metering, prices, reconcile, reports
from tenants.errors import Conflict, Invalid

MARCH, APRIL, MAY = Month(2026, 3), Month(2026, 4), Month(2026, 5)
FROM_START = datetime(2020, 1, 1, tzinfo=UTC)


def tiers(*given):
    return [{"up_to": up_to, "unit_price": price} for up_to, price in given]


def priced(model, *, unit_price="0", given=(), size=1, **more):
    return rating.Price(
        id=1, meter="m", sku="standard", currency="USD", unit="x", unit_price=Decimal(unit_price),
        unit_size=Decimal(size), valid_from=FROM_START, valid_to=None, model=model,
        tiers=tariffs.read_tiers(given) if given else (), **more,
    )  # fmt: skip


@pytest.fixture
def calls(as_staff, clock):
    """A meter of API calls priced by the volume a month reaches: 0-100 at 3, above that all at 2."""
    Meter.objects.create(key="calls", title="Calls", unit="call", natural_unit="call", natural_size=1)
    given = tiers(("100", "3"), (None, "2"))
    prices.set_price(as_staff, meter="calls", unit_price=Decimal(0), model="volume", tiers=given)
    return "calls"


def use(tenant, meter, quantity, key, **more):
    values = {"source": "test", "subject": "ep_1", "subject_title": "api", **more}
    return metering.record_usage(tenant, meter=meter, quantity=quantity, key=key, **values)


def said(invoice):
    return [(line.kind, line.quantity, line.amount) for line in invoice.lines.all()]


def test_a_price_change_at_noon_divides_the_run_into_two_lines_of_19_83_and_24_00(
    tenant, clock, hold, as_staff
):
    """Price 2.50 -> 3.00 at 12:00, 8 GPUs from 11:00:30 to 13:00:00: 43.83 in two lines."""
    clock.to("2026-03-10 10:00:00")
    noon = clock.now() + timedelta(hours=2)
    version = prices.set_price(as_staff, meter="train.gpu", unit_price=Decimal("3.00"), valid_from=noon)
    clock.to("2026-03-10 11:00:30")
    held = hold(units=8)
    clock.to("2026-03-10 13:00:00")
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert said(invoice) == [("usage", 28560, Decimal("19.83")), ("usage", 28800, Decimal("24.00"))]
    assert invoice.total == Decimal("43.83")
    assert invoice.lines.get(position=2).price == version


def test_a_change_of_gpus_inside_an_hour_bills_each_stretch_as_it_was(tenant, clock, hold):
    """4 GPUs for 30 minutes and 1 GPU for 20: 2.33 GPU-hours, not 0.83."""
    first = hold(units=4)
    clock.on(minutes=30)
    metering.close_allocation(first.pk, fence="f1", reason="resized")
    second = hold(units=1)
    clock.on(minutes=20)
    metering.close_allocation(second.pk, fence="f1", reason="done")
    hours = sum(UsageEvent.objects.values_list("quantity", flat=True)) / 3600
    assert round(hours, 2) == Decimal("2.33")
    assert reports.cost_of(tenant, "job_1") == money.price_of(
        Decimal(8400), unit_price=Decimal("2.5"), unit_size=Decimal(3600)
    )


def test_the_first_instant_of_a_month_belongs_to_it(tenant, clock, hold, as_staff):
    """4 GPUs from 23:50 to 00:20 over a month's end: 2,400 and 4,800 GPU-seconds; 00:00:00 is the new month."""
    clock.to("2026-03-31 23:50:00")
    held = hold(units=4)
    clock.to("2026-04-01 00:20:00")
    metering.close_allocation(held.pk, fence="f1", reason="done")
    use(tenant, "endpoint.requests", 1000, "midnight", event_time=APRIL.start)
    march = invoices.finalize(as_staff, tenant, MARCH)
    clock.to("2026-05-01 00:00:00")
    april = invoices.finalize(as_staff, tenant, APRIL)
    assert [line.quantity for line in march.lines.all()] == [2400]
    assert sorted(line.quantity for line in april.lines.all()) == [1000, 4800]


@pytest.mark.parametrize(("month", "hours"), [(Month(2026, 3), 743), (Month(2026, 11), 721)])
def test_a_month_with_a_change_of_the_clock_has_the_hours_that_really_passed(
    tenant, clock, hold, as_staff, month, hours
):
    """New York: March 2026 has 743 hours, November 721; each is one contiguous invoice."""
    accounts.change_account(as_staff, tenant, zone="America/New_York")
    calendar = accounts.calendar_of(tenant)
    clock.moment = calendar.start(month)
    held = hold(units=1, meter="endpoint.replica", lease_s=86400)
    clock.moment = calendar.end(month)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    invoice = invoices.finalize(as_staff, tenant, month)
    assert [line.quantity for line in invoice.lines.all()] == [hours * 3600]
    assert (invoice.period_start, invoice.period_end) == (calendar.start(month), calendar.end(month))
    assert invoice.month == month
    assert reconcile.check(tenant) == []


def test_the_hour_that_comes_twice_is_two_distinct_hours():
    """01:30 local on the first Sunday of November happens at two instants, one hour apart."""
    new_york = Calendar(zone="America/New_York")
    start, end = new_york.start(Month(2026, 11)), new_york.end(Month(2026, 11))
    assert (end - start) == timedelta(hours=721)
    assert start.hour == 4 and end.hour == 5  # UTC


def test_an_anchor_on_the_31st_ends_on_the_last_day_of_short_months_and_returns():
    """24 months from an anchor day of 31: contiguous, no gap, no overlap, back on the 31st where there is one."""
    calendar, month = Calendar(anchor=31), Month(2026, 1)
    starts = []
    for _ in range(25):
        starts.append(calendar.start(month))
        assert calendar.month_of(calendar.start(month)) == month
        assert calendar.month_of(calendar.end(month) - timedelta(microseconds=1)) == month
        assert calendar.end(month) == calendar.start(month.next)
        month = month.next
    assert [start.day for start in starts[:12]] == [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert [start.day for start in starts[12:14]] == [31, 28]
    assert all(one < two for one, two in pairwise(starts))


@given(
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Shanghai", "Europe/Berlin", "Pacific/Auckland"]),
    anchor=st.integers(1, 31),
    at=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)).map(lambda t: t.replace(tzinfo=UTC)),
)
@settings(max_examples=300, deadline=None)
def test_every_instant_lies_in_exactly_one_month_of_any_calendar(zone, anchor, at):
    calendar = Calendar(zone=zone, anchor=anchor)
    month = calendar.month_of(at)
    assert calendar.start(month) <= at < calendar.end(month)


def test_a_trillion_tokens_cost_exactly_what_they_cost(tenant, clock, as_staff):
    """10^12 tokens at 0.15 per 10^6: 150,000.00 exactly; 10^26 and nonsense are refused by name."""
    Meter.objects.create(
        key="tokens", title="Tokens", unit="token", natural_unit="1M tokens", natural_size=10**6
    )
    prices.set_price(as_staff, meter="tokens", unit_price=Decimal("0.15"))
    use(tenant, "tokens", 10**12, "many")
    for quantity in (Decimal(10) ** 26, Decimal("NaN"), Decimal("Infinity"), Decimal("1e999")):
        with pytest.raises(Invalid):
            use(tenant, "tokens", quantity, "bad")
    clock.to("2026-04-01 00:00:00")
    assert invoices.finalize(as_staff, tenant, MARCH).total == Decimal("150000.00")


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"), [("1234.5", "JPY", "1235"), ("1.2345", "KWD", "1.235")]
)
def test_each_currency_is_rounded_at_its_own_places(amount, currency, rounded):
    assert money.text(Decimal(amount), currency) == rounded


def test_ten_over_three_is_3_34_and_twice_3_33():
    parts = money.split(Decimal("10.00"), [Decimal(1)] * 3, step=money.cent("USD"))
    assert parts == [Decimal("3.34"), Decimal("3.33"), Decimal("3.33")]


@given(
    whole=st.integers(-(10**9), 10**9),
    weights=st.lists(st.integers(0, 10**12), min_size=1, max_size=12),
    currency=st.sampled_from(["JPY", "USD", "KWD", "CLF"]),
)
@settings(max_examples=300, deadline=None)
def test_parts_of_a_split_sum_to_the_whole_and_are_off_by_less_than_a_cent(whole, weights, currency):
    cent = money.cent(currency)
    amount = whole * cent
    parts = money.split(amount, [Decimal(weight) for weight in weights], step=cent)
    assert sum(parts) == amount
    total = sum(weights) or len(weights)
    for part, weight in zip(parts, weights if sum(weights) else [1] * len(weights), strict=True):
        assert abs(part - amount * weight / total) < cent


def test_three_lines_of_33_cents_at_20_per_cent_are_taxed_together(tenant, clock, as_staff):
    """Tax of each line apart would be 0.21; on the invoice it is 0.20."""
    TaxRate.objects.create(region="AT", title="VAT", percent=20, valid_from=FROM_START)
    accounts.change_account(as_staff, tenant, tax_region="AT")
    for name in "abc":
        Meter.objects.create(key=name, title=name, unit="x", natural_unit="x", natural_size=1)
        prices.set_price(as_staff, meter=name, unit_price=Decimal("0.33"))
        use(tenant, name, 1, name)
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert [line.amount for line in invoice.lines.all()] == [Decimal("0.33")] * 3
    assert (invoice.net, invoice.tax_total, invoice.total) == (
        Decimal("0.99"), Decimal("0.20"), Decimal("1.19"),
    )  # fmt: skip
    tax = InvoiceTax.objects.get(invoice=invoice)
    assert (str(tax), tax.taxable) == ("VAT 20 %", Decimal("0.99"))
    assert reconcile.check(tenant) == []


def test_taxes_of_two_rates_stand_apart_and_a_region_without_a_rate_is_told(tenant, clock, as_staff):
    TaxRate.objects.create(region="AT", title="VAT", percent=20, valid_from=FROM_START)
    TaxRate.objects.create(region="AT", category="books", title="VAT", percent=10, valid_from=FROM_START)
    Meter.objects.create(key="b", title="b", unit="x", natural_unit="x", natural_size=1, tax_category="books")
    prices.set_price(as_staff, meter="b", unit_price=Decimal(5))
    accounts.change_account(as_staff, tenant, tax_region="AT")
    use(tenant, "b", 2, "b")
    use(tenant, "endpoint.requests", 1_000_000, "r")
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert [(tax.percent, tax.amount) for tax in invoice.taxes.order_by("percent")] == [(10, 1), (20, 4)]
    accounts.change_account(as_staff, tenant, tax_region="XX")
    use(tenant, "b", 2, "b2")
    with pytest.raises(Conflict, match="no tax rate for books in XX"):
        invoices.draft(as_staff, tenant, APRIL)


def test_two_tax_rates_for_one_moment_are_refused_by_the_database(db):
    TaxRate.objects.create(region="AT", title="VAT", percent=20, valid_from=FROM_START)
    with pytest.raises(DatabaseError), transaction.atomic():
        TaxRate.objects.create(region="AT", title="VAT", percent=21, valid_from=MARCH.start)


@pytest.mark.parametrize(
    ("price", "quantity", "amount"),
    [
        (priced("volume", given=tiers(("100", "3"), (None, "2"))), 100, 300),
        (priced("volume", given=tiers(("100", "3"), (None, "2"))), 101, 202),
        (priced("graduated", given=tiers(("100", "3"), (None, "2"))), 120, 340),
        (priced("graduated", given=tiers(("100", "3"), (None, "2"))), 100, 300),
        (priced("package", unit_price="5", size=1000), 0, 0),
        (priced("package", unit_price="5", size=1000), 1, 5),
        (priced("package", unit_price="5", size=1000), 1000, 5),
        (priced("package", unit_price="5", size=1000), 1001, 10),
        (priced("unit", unit_price="2", included=Decimal(10)), 9, 0),
        (priced("unit", unit_price="2", included=Decimal(10)), 13, 6),
        (priced("unit", unit_price="2", minimum=Decimal(5)), 1, 5),
        (priced("unit", unit_price="2", maximum=Decimal(5)), 9, 5),
        (priced("graduated", given=[{"up_to": None, "unit_price": "1", "flat": "7"}]), 3, 10),
    ],
)
def test_each_way_to_price_gives_the_amount_of_the_price_list(price, quantity, amount):
    """Volume 100 -> 300 and 101 -> 202 (the cliff); graduated 120 -> 340; packages are paid when begun."""
    assert price.amount(Decimal(quantity)) == amount


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "last tier has no up_to"),
        (tiers(("10", "1")), "last tier has no up_to"),
        (tiers(("10", "1"), ("5", "1"), (None, "1")), "ends after"),
        (tiers((None, "1"), (None, "1")), "ends after"),
        (tiers((None, "-1")), "zero or more"),
        (tiers((None, "NaN")), "zero or more"),
        (tiers((None, "1.123456789")), "eight decimals"),
        (tiers((None, "１")), "as text"),
        ([{"up_to": None, "unit_price": 1}], "as text"),
        ([{"up_to": None}], "has up_to, unit_price"),
    ],
)
def test_tiers_that_make_no_sense_are_refused_with_the_reason(calls, as_staff, clock, given, why):
    with pytest.raises(Invalid, match=why) as refused:
        prices.set_price(as_staff, meter="calls", unit_price=Decimal(0), model="graduated", tiers=given)
    assert refused.value.faults[0].pointer == "/tiers"
    assert PriceVersion.objects.filter(meter="calls").count() == 1


def test_an_estimate_may_fall_at_the_cliff_and_late_use_takes_the_old_line_back_by_id(
    tenant, clock, as_staff, calls
):
    """100 units bill 300; a late one makes the month 202: the old line is taken back, the new one is said."""
    use(tenant, calls, 100, "march")
    assert invoices.draft(as_staff, tenant, MARCH).invoice.total == 300
    clock.to("2026-04-01 00:00:00")
    march = invoices.finalize(as_staff, tenant, MARCH)
    assert march.total == 300
    use(tenant, calls, 1, "late", event_time=MARCH.end - timedelta(minutes=1))
    use(tenant, calls, 10, "april")
    clock.to("2026-05-01 00:00:00")
    april = invoices.finalize(as_staff, tenant, APRIL)
    assert said(april) == [("usage", 10, 30), ("taken_back", -100, -300), ("usage", 101, 202)]
    assert april.lines.get(kind="taken_back").corrects == march.lines.get()
    assert march.total + april.total == 30 + 202
    assert reconcile.check(tenant) == []
    use(tenant, calls, 1, "later", event_time=MARCH.end - timedelta(minutes=1))
    clock.to("2026-06-01 00:00:00")
    with pytest.raises(Invalid):  # more than 35 days late is not taken
        use(tenant, calls, 1, "too late", event_time=MARCH.end - timedelta(minutes=1))
    may = invoices.finalize(as_staff, tenant, MAY)
    assert said(may) == [("taken_back", -101, -202), ("usage", 102, 204)]  # only what stands is taken back
    assert reconcile.check(tenant) == []


def test_a_month_closed_early_counts_its_tiers_on(tenant, clock, as_staff, calls):
    use(tenant, calls, 60, "first")
    clock.on(seconds=1)
    first = invoices.finalize(as_staff, tenant, MARCH, early=True)
    clock.on(hours=1)
    use(tenant, calls, 60, "second")
    clock.to("2026-04-01 00:00:00")
    second = invoices.finalize(as_staff, tenant, MARCH)
    assert first.total + second.total == 240  # as one invoice over 120 would say
    assert reconcile.check(tenant) == []


def test_a_volume_price_that_falls_below_what_was_billed_becomes_credit(tenant, clock, as_staff, calls):
    use(tenant, calls, 100, "march")
    clock.to("2026-04-01 00:00:00")
    invoices.finalize(as_staff, tenant, MARCH)
    use(tenant, calls, 1, "late", event_time=MARCH.end - timedelta(minutes=1))
    clock.to("2026-05-01 00:00:00")
    april = invoices.finalize(as_staff, tenant, APRIL)
    assert (april.total, april.due) == (-98, 0)
    assert CreditGrant.objects.get().remaining == 98
    assert april.status == "paid"
    assert reconcile.check(tenant) == []


def test_parts_of_a_stepped_line_sum_to_it_exactly(tenant, clock, as_staff, calls, as_ana):
    for name, quantity in (("ep_1", 70), ("ep_2", 20), ("ep_3", 11)):
        use(tenant, calls, quantity, name, subject=name)
    ((_line, parts),) = invoices.draft(as_ana, tenant, MARCH).lines
    assert sum(part.exact for part in parts) == 202
    assert reports.month_to_date(tenant) == 202
    assert round(reports.cost_of(tenant, "ep_1"), 9) == 140


def test_a_plan_has_prices_of_its_own_and_the_standard_ones_for_the_rest(tenant, clock, as_staff):
    prices.set_price(as_staff, meter="train.gpu", unit_price=Decimal(2), plan="partner")
    accounts.change_account(as_staff, tenant, plan="partner")
    assert prices.rate("train.gpu", "standard", tenant=tenant) == 2
    assert prices.rate("train.process", "standard", tenant=tenant) == Decimal("0.06")
    assert prices.rate("train.gpu", "standard") == Decimal("2.50")


def test_an_account_in_yen_is_rated_and_rounded_in_yen(tenant, clock, as_staff, hold, as_ana):
    accounts.change_account(as_staff, tenant, currency="JPY")
    with pytest.raises(Invalid, match="no JPY price"):
        hold()
    prices.set_price(as_staff, meter="train.gpu", unit_price=Decimal("1234.5"), currency="JPY")
    held = hold()
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    assert reports.month_to_date(tenant) == Decimal("1234.5")
    clock.to("2026-04-01 00:00:00")
    invoice = invoices.finalize(as_staff, tenant, MARCH)
    assert (invoice.currency, invoice.total) == ("JPY", 1235)
    assert documents.content_hash(documents.stored(invoice.reload())) == invoice.content_hash
    assert reconcile.check(tenant) == []
    with pytest.raises(Conflict, match="currency, time zone and first day stay"):
        accounts.change_account(as_staff, tenant, currency="USD")
    with pytest.raises(DatabaseError), transaction.atomic():
        accounts.BillingAccount.objects.update(zone="Asia/Tokyo")


def test_an_agreed_minimum_is_filled_up_once_a_month_also_without_usage(tenant, clock, as_staff):
    accounts.change_account(as_staff, tenant, commitment=Decimal(100))
    use(tenant, "endpoint.requests", 1_000_000, "r")  # 20.00
    clock.on(seconds=1)
    early = invoices.finalize(as_staff, tenant, MARCH, early=True)
    assert early.total == 20  # the month is not over: nothing is asked for yet
    clock.to("2026-04-01 00:00:00")
    rest = invoices.finalize(as_staff, tenant, MARCH)
    assert said(rest) == [("commitment", 1, 80)]
    clock.to("2026-05-01 00:00:00")
    assert invoices.finalize(as_staff, tenant, APRIL).total == 100
    assert reconcile.check(tenant) == []
