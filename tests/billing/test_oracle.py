"""Random lives of a tenant against an oracle that knows only sums: billed is what was used, and books agree.

The oracle keeps, by price and month, the exact seconds and requests that were acknowledged. It knows nothing of
beats, lines, credit or invoices. After every step the ledger is zero and every check of the books is clean; at
the end everything is invoiced, and the invoices of a price sum to the oracle's quantity and, where no rounding
was in between, to its amount.
"""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing import clock as billing_clock
from billing import money
from billing.models import InvoiceLine, LedgerEntry, Meter, PriceVersion, TaxRate, UsageEvent
from billing.months import Month
from billing.services import (
    accounts,
    budgets,
    closing,
    credits,
    invoices,
    metering,
    notes,
    payments,
    prices,
    receivables,
    reconcile,
)
from billing.services.metering import Verdict
from tenants.actor import SYSTEM
from tenants.errors import Conflict
from tests.factories import make_tenant

START = datetime(2026, 1, 5, tzinfo=UTC)
EXAMPLES = int(os.environ.get("TAUON_ORACLE_EXAMPLES", "8"))
STEPS = int(os.environ.get("TAUON_ORACLE_STEPS", "20"))


class Life(RuleBasedStateMachine):
    """One tenant through months of work, trouble and money."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.count = 0
        self.open: dict[int, dict[str, Any]] = {}
        self.sent: list[dict[str, Any]] = []
        # oracle: (meter) -> [(from, unit price)], (meter, price, month) -> exact quantity
        self.prices: dict[str, list[tuple[datetime, Decimal]]] = {}
        self.used: dict[tuple[str, Decimal, str], Decimal] = defaultdict(Decimal)

    # -- the oracle --------------------------------------------------------------------------------------------

    def price_at(self, meter: str, at: datetime) -> Decimal:
        return [price for start, price in self.prices[meter] if start <= at][-1]

    def charge_seconds(self, meter: str, start: datetime, end: datetime, units: int) -> None:
        """Second by second would be the same: cut at price changes and months only."""
        cuts = {when for when, _price in self.prices[meter]} | {
            Month(year, number).start for year in range(2026, 2031) for number in range(1, 13)
        }
        edges = [start, *sorted(cut for cut in cuts if start < cut < end), end]
        for one, two in pairwise(edges):
            seconds = Decimal((two - one) // timedelta(microseconds=1)).scaleb(-6) * units
            self.used[meter, self.price_at(meter, one), str(Month.of(one))] += seconds

    # -- steps -------------------------------------------------------------------------------------------------

    @initialize(prepaid=st.booleans(), taxed=st.booleans(), volume=st.booleans())
    def begin(self, prepaid: bool, taxed: bool, volume: bool) -> None:
        self.tenant = make_tenant(f"Lab {self.now}", slug=f"lab-{id(self)}")
        self.volume = volume
        for meter in ("train.gpu", "endpoint.requests"):
            version = PriceVersion.objects.get(meter=meter, valid_to=None, plan="standard", currency="USD")
            self.prices[meter] = [(version.valid_from, version.unit_price)]
        if volume:
            Meter.objects.get_or_create(
                key="calls",
                defaults={"title": "Calls", "unit": "call", "natural_unit": "call", "natural_size": 1},
            )
            tiers = [{"up_to": "100", "unit_price": "3"}, {"up_to": None, "unit_price": "2"}]
            prices.set_price(SYSTEM, meter="calls", unit_price=Decimal(0), model="volume", tiers=tiers)
            self.prices["calls"] = [(self.now, Decimal(0))]
        if taxed:
            TaxRate.objects.get_or_create(
                region="AT", percent=20, title="VAT", valid_from=datetime(2020, 1, 1, tzinfo=UTC)
            )
            accounts.change_account(SYSTEM, self.tenant, tax_region="AT")
        if prepaid:
            credits.grant_credit(SYSTEM, self.tenant, amount=Decimal(40), kind="paid", key="first")

    @rule(hours=st.integers(0, 90), seconds=st.integers(1, 3599), micro=st.integers(0, 999_999))
    def time_passes(self, hours: int, seconds: int, micro: int) -> None:
        self.now += timedelta(hours=hours, seconds=seconds, microseconds=micro)

    @rule(days=st.integers(8, 24))
    def a_month_is_over_and_usage_of_it_comes_late(self, days: int) -> None:
        """What decides most: usage that arrives when its invoice is frozen already."""
        self.now = Month.of(self.now).end + timedelta(hours=2)
        self.months_are_closed()
        self.usage_arrives_late_or_not(meter="calls", quantity=7, ago_h=3)
        self.now += timedelta(days=days)

    @rule(units=st.integers(1, 8))
    def work_begins(self, units: int) -> None:
        self.count += 1
        hold = budgets.reserve(
            self.tenant,
            source=f"{self.tenant.public_id}:{self.count}",
            amount=Decimal(1),
            high_estimate=Decimal(1),
        )
        held = metering.open_allocation(
            self.tenant, meter="train.gpu", sku="standard", units=units, subject=f"job_{self.count}",
            subject_title="digits", user_label="", fence="f", lease_s=60, hold=hold,
        )  # fmt: skip
        self.open[held.pk] = {"units": units, "settled": self.now}

    @precondition(lambda self: self.open)
    @rule(data=st.data(), times=st.integers(1, 3))
    def a_beat_arrives_once_or_more(self, data: st.DataObject, times: int) -> None:
        pk = data.draw(st.sampled_from(sorted(self.open)))
        for _ in range(times):
            assert metering.beat(pk, fence="f") in {Verdict.CONTINUE, Verdict.STOP}
        assert metering.beat(pk, fence="zombie") is Verdict.FENCED
        held = self.open[pk]
        self.charge_seconds("train.gpu", held["settled"], self.now, held["units"])
        held["settled"] = self.now

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def work_ends(self, data: st.DataObject) -> None:
        pk = data.draw(st.sampled_from(sorted(self.open)))
        for _ in range(2):
            metering.close_allocation(pk, fence="f", reason="done")
        held = self.open.pop(pk)
        self.charge_seconds("train.gpu", held["settled"], self.now, held["units"])

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def a_worker_dies_and_is_reaped(self, data: st.DataObject) -> None:
        """Billed to its last beat: nothing is added."""
        pk = data.draw(st.sampled_from(sorted(self.open)))
        metering.close_at_last_beat(pk, reason="lost")
        assert metering.beat(pk, fence="f") is Verdict.FENCED
        self.open.pop(pk)

    @rule(
        meter=st.sampled_from(["endpoint.requests", "calls"]),
        quantity=st.integers(1, 120),
        ago_h=st.integers(0, 24 * 34),
    )
    def usage_arrives(self, meter: str, quantity: int, ago_h: int) -> None:
        self.usage_arrives_late_or_not(meter=meter, quantity=quantity, ago_h=ago_h)

    def usage_arrives_late_or_not(self, *, meter: str, quantity: int, ago_h: int) -> None:
        if meter not in self.prices:
            meter = "endpoint.requests"
        at = max(self.now - timedelta(hours=ago_h), START)
        if at < self.prices[meter][0][0]:
            at = self.now
        self.count += 1
        event = {
            "meter": meter, "quantity": quantity, "source": "oracle", "key": f"k{self.count}", "event_time": at,
            "subject": f"ep_{self.count % 3}", "subject_title": "api",
        }  # fmt: skip
        assert metering.record_usage(self.tenant, **event)
        self.sent.append(event)
        self.used[meter, self.price_at(meter, at), str(Month.of(at))] += quantity

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def usage_comes_again(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.sent))
        if event["event_time"] < self.now - timedelta(days=35):
            return
        assert not metering.record_usage(self.tenant, **event)
        with pytest.raises(Conflict):
            metering.record_usage(self.tenant, **{**event, "quantity": event["quantity"] + 1})

    @rule(meter=st.sampled_from(["train.gpu", "endpoint.requests"]), cents=st.integers(1, 900))
    def a_price_changes(self, meter: str, cents: int) -> None:
        if self.prices[meter][-1][0] >= self.now:
            return
        prices.set_price(SYSTEM, meter=meter, unit_price=Decimal(cents) / 100)
        self.prices[meter].append((self.now, Decimal(cents) / 100))

    @rule(amount=st.integers(1, 50), days=st.integers(1, 20), promo=st.booleans())
    def credit_is_granted(self, amount: int, days: int, promo: bool) -> None:
        self.count += 1
        credits.grant_credit(
            SYSTEM, self.tenant, amount=Decimal(amount), kind="promo" if promo else "paid", key=f"c{self.count}",
            expires_at=self.now + timedelta(days=days) if promo else None,
        )  # fmt: skip

    @rule()
    def expired_credit_is_broken(self) -> None:
        closing.expire_credit()

    @rule()
    def the_timetable_closes_months(self) -> None:
        self.months_are_closed()

    def months_are_closed(self) -> None:
        for pk, held in self.open.items():  # a living worker beats
            metering.beat(pk, fence="f")
            self.charge_seconds("train.gpu", held["settled"], self.now, held["units"])
            held["settled"] = self.now
        assert closing.close_due(tenant=self.tenant).failed == 0

    @rule()
    def an_invoice_is_voided(self) -> None:
        last = self.invoices().order_by("period_end").last()
        if last is None or last.payments.exists() or last.notes.exists() or last.credit_total < 0:
            return
        invoices.void(SYSTEM, last, reason="wrong")

    @rule(share=st.integers(1, 100), refund=st.booleans())
    def an_invoice_is_credited(self, share: int, refund: bool) -> None:
        for invoice in self.invoices().order_by("-period_end")[:1]:
            for room in notes.rooms(invoice):
                amount = money.round_line(room.left * share / 100, "USD")
                if 0 < amount <= room.left:
                    self.count += 1
                    notes.issue_note(
                        SYSTEM, invoice, amounts={room.line.position: amount}, reason="outage",
                        rest="refund" if refund else "credit", key=f"n{self.count}",
                    )  # fmt: skip
                    return

    @rule(share=st.integers(1, 130))
    def an_invoice_is_paid(self, share: int) -> None:
        for invoice, left in receivables.open_invoices(self.tenant)[:1]:
            amount = money.round_line(left * share / 100, "USD")
            if amount > 0:
                self.count += 1
                for _ in range(2):
                    payments.record_payment(
                        SYSTEM,
                        invoice,
                        amount=amount,
                        reference=f"{self.tenant.public_id}{self.count}",
                        key=f"p{self.count}",
                    )

    @rule()
    def what_is_owed_back_is_paid_back(self) -> None:
        for note in notes.CreditNote.objects.filter(tenant=self.tenant, to_refund__gt=0):
            for payment in note.invoice.payments.filter(status="succeeded"):
                owed = note.to_refund - sum(one.amount for one in note.refunds.all())
                there = payment.amount - payment.to_credit - sum(one.amount for one in payment.refunds.all())
                if (amount := min(owed, there)) > 0:
                    payments.refund(
                        SYSTEM, note, payment, amount=amount, key=f"{note.public_id}{payment.public_id}"
                    )

    # -- what always holds ---------------------------------------------------------------------------------------

    def invoices(self) -> Any:
        return invoices.Invoice.objects.filter(tenant=self.tenant).holding()

    @invariant()
    def books_agree_and_the_ledger_is_zero(self) -> None:
        if not hasattr(self, "tenant"):
            return
        with connection.cursor() as cursor:
            cursor.execute("set constraints all immediate")
            cursor.execute("set constraints all deferred")
        entries = LedgerEntry.objects.filter(account__tenant=self.tenant)
        assert sum(entries.values_list("amount", flat=True)) == 0
        assert reconcile.check(self.tenant) == []

    @invariant()
    def what_is_stored_is_what_the_oracle_counted(self) -> None:
        if not hasattr(self, "tenant"):
            return
        stored: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for meter, at, quantity in UsageEvent.objects.filter(tenant=self.tenant).values_list(
            "meter", "event_time", "quantity"
        ):
            stored[meter, str(Month.of(at))] += quantity
        told: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for (meter, _price, month), quantity in self.used.items():
            told[meter, month] += quantity
        assert {k: v for k, v in stored.items() if v} == {k: v for k, v in told.items() if v}

    def teardown(self) -> None:
        """Everything ends and is invoiced; then what was billed is what the oracle says, to the cent."""
        try:
            if hasattr(self, "tenant"):
                self.settle_everything()
        finally:
            super().teardown()

    def settle_everything(self) -> None:
        for pk, held in self.open.items():
            metering.close_allocation(pk, fence="f", reason="done")
            self.charge_seconds("train.gpu", held["settled"], self.now, held["units"])
        self.open = {}
        self.usage_arrives_late_or_not(meter="endpoint.requests", quantity=9, ago_h=0)
        for late in (True, False, False):
            self.now = Month.of(self.now).end + timedelta(hours=2)
            closing.close_due(tenant=self.tenant)
            if late:  # its month is frozen already
                self.usage_arrives_late_or_not(meter="endpoint.requests", quantity=9, ago_h=3)
        assert invoices.open_months(self.tenant) == []
        lines = InvoiceLine.objects.filter(invoice__in=self.invoices(), price__isnull=False)
        billed: dict[tuple[str, Decimal], list[InvoiceLine]] = defaultdict(list)
        for line in lines:
            billed[line.meter_id, line.unit_price].append(line)
        told: dict[tuple[str, Decimal], Decimal] = defaultdict(Decimal)
        for (meter, price, _month), quantity in self.used.items():
            told[meter, price] += quantity
        assert {key: sum(line.quantity for line in found) for key, found in billed.items()} == {
            key: quantity for key, quantity in told.items() if quantity
        }
        for (meter, price), found in billed.items():
            if meter == "calls":
                expected = sum(
                    quantity * (3 if quantity <= 100 else 2)
                    for (one, _price, _month), quantity in self.used.items()
                    if one == "calls"
                )
                assert sum(line.amount for line in found) == expected
                continue
            size = found[0].unit_size
            # one rounding a line: each is off by half a cent at most, and nothing else is
            exact = told[meter, price] * price / size
            assert abs(sum(line.amount for line in found) - exact) <= Decimal("0.005") * len(found)
            for line in found:
                assert line.amount == money.round_line(line.quantity * price / size, "USD")
        self.books_agree_and_the_ledger_is_zero()


@pytest.mark.django_db
def test_random_lives_are_billed_as_the_oracle_counts_them(monkeypatch):
    """Each example runs in a transaction of its own that is taken back."""

    class Rolled(Life):
        def __init__(self) -> None:
            self._atomic = transaction.atomic()
            self._atomic.__enter__()
            super().__init__()
            monkeypatch.setattr(billing_clock, "now", lambda: self.now)

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                transaction.set_rollback(True)
                self._atomic.__exit__(None, None, None)

    run_state_machine_as_test(
        Rolled,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None,
            # the same lives in every run of the suite, new ones for whoever asks for a number of them;
            # all steps of a life that fails are printed, and shortening it would take many minutes
            derandomize="TAUON_ORACLE_EXAMPLES" not in os.environ, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
