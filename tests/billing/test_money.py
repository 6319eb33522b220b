"""Rounding and rating without a database."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import money, rating
from billing.months import Month

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def price(amount="2.50", *, id=1, start=NOON - timedelta(days=9), end=None, currency="USD", size=3600):
    return rating.Price(
        id=id, meter="train.gpu", sku="standard", currency=currency, unit="GPU-hour",
        unit_price=Decimal(amount), unit_size=Decimal(size), valid_from=start, valid_to=end,
    )  # fmt: skip


def used(quantity, at=NOON, *, of=None, subject="job_1", late=False):
    return rating.Usage(
        price=of or price(), quantity=Decimal(quantity), started_at=at, ended_at=at, subject=subject,
        subject_title=subject, late=late,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("2.345", "USD", "2.35"),
        ("2.355", "USD", "2.36"),
        ("-2.345", "USD", "-2.35"),
        ("1234.5", "JPY", "1235"),
        ("1.2345", "KWD", "1.235"),
        ("0.00005", "CLF", "0.0001"),
    ],
)
def test_a_line_is_rounded_half_up_at_its_currencys_places(amount, currency, rounded):
    assert money.text(Decimal(amount), currency) == rounded


def test_a_price_per_hour_loses_nothing_over_a_month():
    assert price().amount(Decimal(8 * 30 * 86400)) == Decimal(14400)


def test_no_digit_is_lost_at_the_far_end_of_what_can_be_stored():
    quantity = Decimal("99999999999999999999999999.999999999999")
    found = money.price_of(quantity, unit_price=Decimal("3.00000001"), unit_size=Decimal(1))
    assert found == Decimal("300000000999999999999999999.99999999999699999999")
    assert money.price_of(quantity, unit_price=Decimal(1), unit_size=Decimal(1)) == quantity


def test_many_small_subjects_are_rounded_together_not_each():
    parts = [used("0.6", subject=f"job_{n}") for n in range(1000)]  # 0.0004 each
    (line,) = rating.rate(parts)
    assert line.amount == Decimal("0.42")
    assert len(line.parts) == 1000


def test_late_usage_and_another_price_are_lines_of_their_own():
    other = price("3", id=2, start=NOON)
    lines = rating.rate([used(3600), used(3600, of=other), used(60, late=True), used(3600)])
    assert [(line.late, line.quantity, line.amount) for line in lines] == [
        (False, 7200, Decimal("5.00")),
        (False, 3600, Decimal("3.00")),
        (True, 60, Decimal("0.04")),
    ]


def test_an_event_at_the_very_change_has_the_new_price():
    old, new = price(end=NOON), price("3", id=2, start=NOON)
    assert rating.price_at([old, new], NOON) is new
    assert rating.price_at([old, new], NOON - timedelta(microseconds=1)) is old
    assert rating.price_at([new], NOON - timedelta(days=1)) is None


moments = st.integers(0, 10 * 86400 * 10**6).map(lambda us: NOON + timedelta(microseconds=us))


@given(start=moments, end=moments, cuts=st.lists(moments, max_size=5))
@settings(max_examples=200, deadline=None)
def test_pieces_join_without_gap_or_overlap_and_none_crosses_a_cut(start, end, cuts):
    pieces = rating.split(start, end, [*rating.midnights(start, end), *cuts])
    if end <= start:
        assert pieces == []
        return
    assert pieces[0][0] == start and pieces[-1][1] == end
    assert all(one[1] == two[0] for one, two in pairwise(pieces))
    assert money.total([rating.seconds(*piece) for piece in pieces]) == rating.seconds(start, end)
    assert all(not begin < cut < finish for begin, finish in pieces for cut in cuts)
    assert all((finish - timedelta(microseconds=1)).date() == begin.date() for begin, finish in pieces)


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from("abc")), min_size=1, max_size=20), st.randoms()
)
@settings(max_examples=100, deadline=None)
def test_the_order_of_usage_does_not_change_a_line(given, random):
    usage = [used(quantity, subject=subject) for quantity, subject in given]
    shuffled = random.sample(usage, len(usage))
    (one,), (two,) = rating.rate(usage), rating.rate(shuffled)
    assert (one.quantity, one.amount) == (two.quantity, two.amount)
    assert money.total([part.quantity for part in one.parts]) == one.quantity


def test_months_are_half_open_and_follow_each_other():
    month = Month(2026, 12)
    assert month.next == Month(2027, 1) and month.next.previous == month
    assert Month.of(month.end) == month.next
    assert len(Month(2028, 2).days) == 29
    for bad in ("2026-13", "2026-1", "26-01", "２０２６-01", "2026-01-01", ""):
        with pytest.raises(ValueError):
            Month.parse(bad)


def test_the_ledger_knows_no_float():
    for path in set(Path("billing").rglob("*.py")) - {Path("billing/pdf.py")}:  # fonts have sizes of 9.5
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), path
            assert not (isinstance(node, ast.Name) and node.id == "float"), path
