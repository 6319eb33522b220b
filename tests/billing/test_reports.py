"""Reports and invoices tell the same story, and exports are safe to open."""

from __future__ import annotations

import csv
import io
import itertools
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.test import AsyncRequestFactory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import csvs, money
from billing.models import Allocation, Meter, PriceVersion, TaxRate, UsageDay, UsageEvent
from billing.months import Month
from billing.services import (
    accounts,
    costcard,
    explorer,
    ingest,
    invoices,
    metering,
    overview,
    prices,
    reconcile,
    reports,
    scopes,
)
from billing.services.explorer import Question
from billing.services.metering import record_usage
from tenants.errors import Forbidden, Hidden, Invalid
from tests.factories import make_tenant

MARCH = Month(2026, 3)


@pytest.fixture
def spent(tenant, clock, hold):
    """Two tenants, three subjects, two days."""
    other = make_tenant("Other")
    for of, subject, units, minutes in (
        (tenant, "job_a", 4, 60),
        (tenant, "job_b", 1, 30),
        (other, "job_c", 2, 60),
    ):
        held = hold(of, subject=subject, subject_title=f"title of {subject}", units=units)
        clock.on(minutes=minutes)
        metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.on(days=1)
    record_usage(
        tenant, meter="endpoint.requests", quantity=5000, source="gateway", key="1", subject="ep_1",
        subject_title="digits",
    )  # fmt: skip
    return other


def ask(actor, by, *, start=date(2026, 3, 1), end=date(2026, 4, 1), then="", tenant="", currency="", **more):
    scope = scopes.everybody(actor, tenant=tenant, currency=currency)
    return explorer.explore(scope, Question(start=start, end=end, by=by, then=then, **more))


def table(actor, by, **more):
    return {row.parts[0].label: row.amounts.net for row in ask(actor, by, **more).rows}


def test_a_report_groups_by_what_was_asked_and_always_sums_to_the_same(spent, as_staff):
    assert table(as_staff, "tenant") == {"Lab": Decimal("11.35"), "Other": Decimal(5)}
    assert table(as_staff, "subject")["title of job_a"] == Decimal(10)
    assert table(as_staff, "meter") == {
        "Training GPUs": Decimal("16.25"),
        "Endpoint requests": Decimal("0.1"),
    }
    assert table(as_staff, "stream") == {"Training": Decimal("16.25"), "Endpoints": Decimal("0.1")}
    assert table(as_staff, "day") == {"2026-03-10": Decimal("16.25"), "2026-03-11": Decimal("0.1")}
    assert table(as_staff, "month") == {"2026-03": Decimal("16.35")}
    for by in explorer.GROUPS:
        found = ask(as_staff, by, label="team")
        assert money.total([row.amounts.net for row in found.rows]) == found.total.net == Decimal("16.35")


def test_two_levels_are_ordered_inside_the_first_and_sum_to_it(spent, as_staff):
    found = ask(as_staff, "tenant", then="subject")
    labels = [tuple(part.label for part in row.parts) for row in found.rows]
    assert labels == [
        ("Lab", "title of job_a"), ("Lab", "title of job_b"), ("Lab", "digits"), ("Other", "title of job_c"),
    ]  # fmt: skip
    lab = [row.amounts.net for row in found.rows if row.parts[0].label == "Lab"]
    assert money.total(lab) == table(as_staff, "tenant")["Lab"]
    by_day = ask(as_staff, "tenant", then="day")
    assert [part.key for part in by_day.rows[0].parts][1] == "2026-03-10"


def test_one_name_of_two_tenants_is_two_rows(tenant, clock, as_staff):
    for of, quantity in ((tenant, 1000), (make_tenant("Other"), 3000)):
        use(of, quantity, "k", subject="film_7")
    found = ask(as_staff, "subject")
    assert [(row.parts[0].hint, row.amounts.net) for row in found.rows] == [
        ("Other", Decimal("0.06")), ("Lab", Decimal("0.02")),
    ]  # fmt: skip


def test_every_pair_of_groups_has_the_same_total(spent, as_staff):
    for first, second in itertools.permutations(explorer.GROUPS, 2):
        found = ask(as_staff, first, then=second, label="team")
        assert found.total.net == Decimal("16.35"), (first, second)
        assert money.total([row.amounts.net for row in found.rows]) == found.total.net


def test_a_report_can_look_at_one_tenant_meter_user_subject_or_label(spent, as_staff, tenant):
    assert sum(table(as_staff, "day", tenant=tenant.public_id).values()) == Decimal("11.35")
    assert sum(table(as_staff, "day", meter="endpoint.requests").values()) == Decimal("0.1")
    assert sum(table(as_staff, "day", subject="job_b").values()) == Decimal("1.25")
    assert sum(table(as_staff, "day", user="ana@example.org").values()) == Decimal("16.25")
    batch = [
        {
            "key": f"k{n}",
            "meter": "endpoint.requests",
            "quantity": 1000,
            "subject": "ep_9",
            "labels": {"team": team},
        }
        for n, team in enumerate(("vision", "vision", "speech"))
    ]
    ingest.record_batch(tenant, source="t", events=batch)
    assert table(as_staff, "label", label="team", meter="endpoint.requests") == {
        "vision": Decimal("0.04"), "speech": Decimal("0.02"), "without this label": Decimal("0.1"),
    }  # fmt: skip
    assert sum(table(as_staff, "day", where="team=vision").values()) == Decimal("0.04")
    assert explorer.label_names(scopes.everybody(as_staff)) in (["team"], [])  # by the machine's own clock


def test_a_reports_days_are_half_open(spent, as_staff):
    assert ask(as_staff, "day", start=date(2026, 3, 10), end=date(2026, 3, 11)).total.net == Decimal("16.25")
    assert ask(as_staff, "day", start=date(2026, 3, 10), end=date(2026, 3, 12)).total.net == Decimal("16.35")


def test_the_chart_holds_the_same_money_as_the_table(spent, as_staff):
    for by in explorer.GROUPS:
        start = date(2026, 3, 5) if by == "hour" else date(2025, 6, 1)
        found = ask(as_staff, by, start=start, label="team")
        drawn = money.total([value for one in found.chart["series"] for value in one["values"]])
        assert drawn == found.total.net
        assert found.chart["labels"][-1] == ("03-31 23:00" if by == "hour" else "2026-03")
    days = ask(as_staff, "day", start=date(2026, 3, 30), end=date(2026, 4, 1)).chart["labels"]
    assert days == ["2026-03-30", "2026-03-31"], "the chart says them in the reader's language"


def test_a_report_of_everybody_is_for_staff_and_for_real_questions(spent, as_ana, as_staff):
    with pytest.raises(Forbidden):
        table(as_ana, "day")
    wrong = (
        {"start": date(2026, 3, 1), "end": date(2026, 3, 1)},
        {"start": date(2020, 1, 1), "end": date(2026, 1, 1)},
        {"by": "price_id"},
        {"then": "moon"},
        {"then": "day"},
        {"by": "label"},
        {"by": "hour", "start": date(2026, 1, 1)},
        {"where": "team"},
    )
    for one in wrong:
        with pytest.raises(Invalid):
            ask(as_staff, **{"by": "day", **one})


def test_a_tenants_own_report_holds_its_own_money_alone(spent, as_ana, tenant):
    found = explorer.explore(
        scopes.own(as_ana), Question(start=date(2026, 3, 1), end=date(2026, 4, 1), by="subject")
    )
    assert found.total.net == Decimal("11.35")
    assert {row.parts[0].key for row in found.rows} == {"job_a", "job_b", "ep_1"}


def test_what_is_held_without_a_price_makes_the_window_incomplete_not_smaller(tenant, clock, hold, as_staff):
    hold(subject="job_a")
    clock.on(minutes=10)
    Meter.objects.create(key="quantum", title="Quantum", unit="s", natural_unit="h", natural_size=3600)
    Allocation.objects.create(
        tenant=tenant, meter_id="quantum", sku="standard", units=2, subject="job_q", subject_title="q", fence="f",
        lease_s=15, started_at=clock.now() - timedelta(minutes=5), settled_through=clock.now() - timedelta(minutes=5),
        last_beat_at=clock.now(),
    )  # fmt: skip
    whole = ask(as_staff, "day").completeness
    assert not whole.complete
    assert any("quantum" in gap for gap in whole.gaps) and any("silent" in gap for gap in whole.gaps)
    assert whole.through == clock.now() - timedelta(minutes=10)
    assert whole.unbilled_s == 10 * 60 + 2 * 5 * 60
    before = ask(as_staff, "day", end=date(2026, 3, 10)).completeness
    assert before.complete and before.through == datetime(2026, 3, 10, tzinfo=UTC)


def test_currencies_are_never_added_up(spent, tenant, as_staff):
    start = datetime(2020, 1, 1, tzinfo=UTC)
    price = PriceVersion.objects.create(
        meter_id="train.gpu", sku="standard", currency="EUR", unit="GPU-hour", unit_size=3600, unit_price=2,
        valid_from=start,
    )  # fmt: skip
    UsageDay.objects.create(
        tenant=tenant, day=date(2026, 3, 10), price=price, subject="job_e", subject_title="e", quantity=3600
    )
    found = ask(as_staff, "day")
    assert found.total.net == Decimal("16.35") and found.completeness.elsewhere == ("EUR",)
    euros = ask(as_staff, "day", currency="EUR")
    assert (euros.total.net, euros.currency, euros.completeness.elsewhere) == (Decimal(2), "EUR", ("USD",))
    with pytest.raises(Invalid):
        ask(as_staff, "day", currency="eur")


def test_list_prices_tax_and_credit_stand_beside_the_cost(tenant, clock, hold, as_staff):
    account = accounts.of(tenant)
    account.plan, account.tax_region = "gold", "DE"
    account.save()
    TaxRate.objects.create(region="DE", title="VAT", percent=20, valid_from=datetime(2020, 1, 1, tzinfo=UTC))
    prices.set_price(as_staff, meter="train.gpu", plan="gold", unit_price=Decimal(2))
    held = hold(units=4)
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    found = ask(as_staff, "day")
    assert found.has_list and found.has_tax and not found.has_credits
    assert (found.total.list, found.total.net, found.total.tax) == (Decimal(10), Decimal(8), Decimal("1.6"))


def test_the_overview_compares_the_same_days_and_looks_ahead(tenant, clock, hold, as_staff, as_ana):
    clock.to("2026-02-05 00:00:00")
    use(tenant, 100_000, "feb")  # 2.00 on February 5th
    clock.to("2026-02-20 00:00:00")
    use(tenant, 500_000, "late")  # not in the same days
    clock.to("2026-03-05 00:00:00")
    use(tenant, 150_000, "mar")  # 3.00
    clock.to("2026-03-11 00:00:00")
    held = hold(units=2)
    clock.on(minutes=30)
    metering.beat(held.pk, fence="f1")
    found = overview.overview(scopes.everybody(as_staff), with_invoices=True)
    assert (found.spent, found.before) == (Decimal("5.5"), Decimal(2))
    assert found.change == Decimal("1.75")
    assert (found.per_hour_now, found.running) == (Decimal(5), 1)
    # 3.00 in the seven whole days before, 20 days and 23.5 hours are left
    left = Decimal(20 * 86400 + 23 * 3600 + 1800) / 86400
    assert round(found.forecast, 9) == round(Decimal("5.5") + Decimal(3) / 7 * left, 9)
    assert found.owed == 0 and found.credit is None
    mine = overview.overview(scopes.own(as_ana), with_invoices=False)
    assert (mine.spent, mine.owed) == (found.spent, None)


def test_a_cost_card_adds_up_what_each_place_held(tenant, clock, hold, as_staff, as_ana, as_cy):
    for units in (4, 2):
        held = hold(units=units, subject="job_x", subject_title="x")
        clock.on(minutes=30)
        metering.close_allocation(held.pk, fence="f1", reason="done")
    running = hold(units=1, subject="job_x", subject_title="renamed")
    clock.on(seconds=36)
    metering.beat(running.pk, fence="f1")
    card = costcard.card(scopes.own(as_ana), "job_x")
    assert card.cost == Decimal("7.525") == money.total([one.cost for one in card.places])
    assert [(one.units, one.billed_s, one.why) for one in card.places] == [
        (1, 36, ""), (2, 1800, "done"), (4, 1800, "done"),
    ]  # fmt: skip
    assert (card.title, card.running, card.per_hour_now) == ("renamed", True, Decimal("2.5"))
    assert [(one.title, one.quantity) for one in card.used] == [("Training GPUs", Decimal("3.01"))]
    for scope in (scopes.own(as_cy), scopes.everybody(as_staff, tenant=as_cy.the_tenant.public_id)):
        with pytest.raises(Hidden):
            costcard.card(scope, "job_x")


def test_a_renamed_subject_goes_by_its_latest_name(tenant, clock, as_staff):
    for key, title in (("1", "old"), ("2", "new")):
        use(tenant, 1, key, title=title)
        clock.on(days=1)
    assert set(table(as_staff, "subject")) == {"new"}
    assert [one.title for one in reports.spend_by_subject(tenant, MARCH)] == ["new"]


def use(tenant, quantity, key, *, subject="ep_1", title="digits"):
    return record_usage(
        tenant, meter="endpoint.requests", quantity=quantity, source="g", key=key, subject=subject,
        subject_title=title,
    )  # fmt: skip


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1", '=HYPERLINK("x")'])
def test_a_cell_never_becomes_a_formula(text):
    content = "".join(csvs.lines(["a"], [[text]]))
    assert next(iter(list(csv.reader(io.StringIO(content)))[1])).startswith("'")


def test_a_csv_keeps_exact_decimals_and_utc_times():
    moment = datetime(2026, 3, 1, 1, tzinfo=UTC)
    line = "".join(
        csvs.lines(["a", "b", "c", "d"], [[Decimal("-0.000666666666666666"), 10**20, moment, None]])
    )
    assert line.splitlines()[1] == "-0.000666666667,100000000000000000000,2026-03-01T01:00:00+00:00,"


async def test_a_csv_streams_from_an_asgi_server():
    request = AsyncRequestFactory().get("/usage.csv")
    response = csvs.response(request, "x.csv", ["n"], ([n] for n in range(1200)))
    pieces = [piece async for piece in response.streaming_content]
    assert len(pieces) == 3
    assert b"".join(pieces).decode().split()[-1] == "1199"


slugs = itertools.count()
pieces = st.lists(
    st.tuples(
        st.sampled_from(["job_a", "job_b", "ep_1"]),
        st.sampled_from(["endpoint.requests", "storage", "train.gpu"]),
        st.decimals(0, 10**9, places=6),
        st.integers(0, 31 * 86400 - 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(pieces=pieces, seed=st.randoms())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reports_invoice_and_ledger_agree_for_any_usage_in_any_order(
    db, clock, as_staff, pieces, seed: random.Random
):
    """Another order and doubled sends give the same invoice; every sum agrees with every other."""
    totals = []
    for run in range(2):
        tenant = make_tenant("Lab", slug=f"lab-{next(slugs)}")
        clock.to("2026-04-01 00:00:00")
        order = list(enumerate(pieces))
        if run:
            seed.shuffle(order)
            order += order[:3]
        for number, (subject, meter, quantity, second, _again) in order:
            record_usage(
                tenant, meter=meter, quantity=quantity, source="t", key=str(number), subject=subject,
                subject_title=subject, event_time=MARCH.start + timedelta(seconds=second),
            )  # fmt: skip
        assert UsageEvent.objects.filter(tenant=tenant).count() == len(pieces)
        made = invoices.draft(as_staff, tenant, MARCH)
        invoice = invoices.finalize(as_staff, tenant, MARCH)
        assert invoice.total == made.invoice.total
        exact = made.exact
        for by in explorer.GROUPS:
            found = ask(as_staff, by, tenant=tenant.public_id, label="team")
            assert abs(found.total.net - exact) < Decimal(10) ** -11  # lines keep twelve places
        by_meter = ask(as_staff, "meter", tenant=tenant.public_id)
        rounded = [money.round_line(row.amounts.net, "USD") for row in by_meter.rows]
        assert money.total(rounded) == invoice.total  # one price per meter here: one line per row
        assert money.kept(reports.month_to_date(tenant, MARCH)) == money.kept(by_meter.total.net)
        assert reconcile.check(tenant) == []
        totals.append((invoice.total, [(line.quantity, line.amount) for line in invoice.lines.all()]))
    assert totals[0] == totals[1]


def test_reconcile_names_what_does_not_agree(tenant, clock, spent):
    assert reconcile.check(tenant) == []
    UsageDay.objects.filter(tenant=tenant, subject="job_a").update(quantity=1)
    (wrong,) = reconcile.check(tenant)
    assert "job_a" in wrong


def test_the_usage_page_and_the_overview_foretell_the_same(tenant, clock, browser_of, ana):
    clock.to("2026-03-05 00:00:00")
    use(tenant, 70_000_000, "k")  # 1,400.00
    clock.to("2026-03-11 00:00:00")
    for page in ("/usage/", "/usage/overview"):
        assert "$6,300.00" in browser_of(ana).get(page).content.decode(), (
            page
        )  # 1,400 in 6 days: 21 more of 233.33
