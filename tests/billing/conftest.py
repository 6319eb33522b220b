"""A clock the tests can set, and short ways to what every ledger test needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing import clock as billing_clock
from billing.models import Allocation, Invoice
from billing.months import Month
from billing.services import invoices, metering
from tenants.actor import Actor
from tenants.http import actor_from_user
from tenants.models import Tenant, User
from tests import factories


class TestClock:
    """Stands in for the database's clock; moves only when told."""

    __test__ = False

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def to(self, text: str) -> datetime:
        """`clock.to("2026-03-31 23:50:00")`, UTC."""
        self.moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return self.moment

    def on(self, **more: float) -> datetime:
        self.moment += timedelta(**more)
        return self.moment


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TestClock:
    set_clock = TestClock(datetime(2026, 3, 10, 12, tzinfo=UTC))
    monkeypatch.setattr(billing_clock, "now", set_clock.now)
    return set_clock


@pytest.fixture
def hold(tenant: Tenant) -> Callable[..., Allocation]:
    """hold(units=8) opens an allocation of GPUs for a subject."""

    def open_one(of: Tenant | None = None, **fields: Any) -> Allocation:
        values = {
            "meter": "train.gpu",
            "sku": "standard",
            "units": 1,
            "subject": "job_1",
            "subject_title": "digits",
            "user_label": "ana@example.org",
            "fence": "f1",
            "lease_s": 15,
            **fields,
        }
        return metering.open_allocation(of or tenant, **values)

    return open_one


@pytest.fixture
def staff(db: None) -> User:
    return factories.make_user("staff@example.org", tenant=factories.make_tenant("House"), is_staff=True)


@pytest.fixture
def as_staff(staff: User) -> Actor:
    return actor_from_user(staff)


@pytest.fixture
def invoice(tenant: Tenant, clock: TestClock, as_staff: Actor, hold: Callable[..., Allocation]) -> Invoice:
    """10.00 of March 2026, due on 15 April."""
    held = hold(units=4)
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.to("2026-04-01 00:00:00")
    return invoices.finalize(as_staff, tenant, Month(2026, 3))
