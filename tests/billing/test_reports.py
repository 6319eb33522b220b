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
from billing.models import UsageDay, UsageEvent
from billing.months import Month
from billing.services import costs, invoices, metering, reconcile, reports
from billing.services.metering import record_usage
from tenants.errors import Forbidden, Invalid
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


def table(actor, by, **more):
    found = costs.report(actor, start=date(2026, 3, 1), end=date(2026, 4, 1), group=by, **more)
    return {row.label: row.cost for row in found.rows}


def test_a_report_groups_by_what_was_asked_and_always_sums_to_the_same(spent, as_staff):
    assert table(as_staff, "tenant") == {"Lab": Decimal("11.35"), "Other": Decimal(5)}
    assert table(as_staff, "subject")["title of job_a"] == Decimal(10)
    assert table(as_staff, "meter") == {
        "Training GPUs": Decimal("16.25"),
        "Endpoint requests": Decimal("0.1"),
    }
    assert table(as_staff, "day") == {"2026-03-10": Decimal("16.25"), "2026-03-11": Decimal("0.1")}
    for by in costs.GROUPS:
        found = costs.report(as_staff, start=date(2026, 3, 1), end=date(2026, 4, 1), group=by)
        assert money.total([row.cost for row in found.rows]) == found.total == Decimal("16.35")


def test_a_report_can_look_at_one_tenant_or_one_meter(spent, as_staff, tenant):
    assert sum(table(as_staff, "day", tenant=tenant.public_id).values()) == Decimal("11.35")
    assert sum(table(as_staff, "day", meter="endpoint.requests").values()) == Decimal("0.1")


def test_a_reports_days_are_half_open(spent, as_staff):
    days = {"group": "day", "start": date(2026, 3, 10)}
    assert costs.report(as_staff, end=date(2026, 3, 11), **days).total == Decimal("16.25")
    assert costs.report(as_staff, end=date(2026, 3, 12), **days).total == Decimal("16.35")


def test_the_chart_holds_the_same_money_as_the_table(spent, as_staff):
    for by in costs.GROUPS:
        found = costs.report(as_staff, start=date(2025, 6, 1), end=date(2026, 4, 1), group=by)
        drawn = money.total([value for one in found.chart["series"] for value in one["values"]])
        assert drawn == found.total
        assert found.chart["labels"][-1] == "2026-03"


def test_a_report_is_for_staff_and_for_real_stretches(spent, as_ana, as_staff):
    with pytest.raises(Forbidden):
        table(as_ana, "day")
    for start, end in ((date(2026, 3, 1), date(2026, 3, 1)), (date(2020, 1, 1), date(2026, 1, 1))):
        with pytest.raises(Invalid):
            costs.report(as_staff, start=start, end=end, group="day")
    with pytest.raises(Invalid):
        table(as_staff, "price_id")


def test_a_renamed_subject_goes_by_its_latest_name(tenant, clock, as_staff):
    for key, title in (("1", "old"), ("2", "new")):
        record_usage(
            tenant,
            meter="endpoint.requests",
            quantity=1,
            source="g",
            key=key,
            subject="ep_1",
            subject_title=title,
        )
        clock.on(days=1)
    assert set(table(as_staff, "subject")) == {"new"}
    assert [one.title for one in reports.spend_by_subject(tenant, MARCH)] == ["new"]


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
        for by in costs.GROUPS:
            found = costs.report(
                as_staff, start=MARCH.first, end=MARCH.next.first, group=by, tenant=tenant.public_id
            )
            assert abs(found.total - exact) < Decimal(10) ** -11  # lines keep twelve places
        by_meter = costs.report(
            as_staff, start=MARCH.first, end=MARCH.next.first, group="meter", tenant=tenant.public_id
        )
        rounded = [money.round_line(row.cost, "USD") for row in by_meter.rows]
        assert money.total(rounded) == invoice.total  # one price per meter here: one line per row
        assert money.kept(reports.month_to_date(tenant, MARCH)) == money.kept(by_meter.total)
        assert reconcile.check(tenant) == []
        totals.append((invoice.total, [(line.quantity, line.amount) for line in invoice.lines.all()]))
    assert totals[0] == totals[1]


def test_reconcile_names_what_does_not_agree(tenant, clock, spent):
    assert reconcile.check(tenant) == []
    UsageDay.objects.filter(tenant=tenant, subject="job_a").update(quantity=1)
    (wrong,) = reconcile.check(tenant)
    assert "job_a" in wrong
