"""What stands beside a cost in a report: its list price, the tax on it, and what credit paid of it.

A list price is that of the standard plan at the start of the usage's UTC day. Tax is that of the tenant's region at
the same moment. Credit is an invoice's, shared over the usage of its period by amount: a draft has taken none yet.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from billing import money, rating
from billing.models import BillingAccount, Invoice, Meter, PriceVersion, TaxRate
from billing.services.prices import PLAN
from billing.services.scopes import Scope


class Extras:
    """Read once for a window; says of each priced row what to put beside its cost."""

    def __init__(self, scope: Scope, start: date, end: date) -> None:
        accounts = scope.rows(BillingAccount.objects.exclude(tax_region=""))
        self.regions: dict[int, str] = dict(accounts.values_list("tenant_id", "tax_region"))
        self.rates: list[TaxRate] = list(TaxRate.objects.all()) if self.regions else []
        self.categories: dict[str, str] = (
            dict(Meter.objects.values_list("key", "tax_category")) if self.regions else {}
        )
        self.paid: dict[int, list[tuple[datetime, datetime, Decimal]]] = {}
        invoices = scope.rows(Invoice.objects.holding()).filter(
            credit_total__gt=0, period_end__gt=midnight(start), period_start__lt=midnight(end)
        )
        for one in invoices:
            share = money.EXACT.divide(one.credit_total, one.total)
            self.paid.setdefault(one.tenant_id, []).append((one.period_start, one.period_end, share))
        self.listed: dict[tuple[str, str, str], list[rating.Price]] = {}
        if PriceVersion.objects.exclude(plan=PLAN).exists():
            for version in PriceVersion.objects.filter(plan=PLAN):
                key = (version.meter_id, version.sku, version.currency)
                self.listed.setdefault(key, []).append(version.value)

    @property
    def needs_tenant(self) -> bool:
        return bool(self.regions or self.paid)

    @property
    def needs_day(self) -> bool:
        return bool(self.needs_tenant or self.listed)

    def of(self, row: dict[str, Any], price: dict[str, Any], cost: Decimal) -> dict[str, Decimal]:
        """list, credits and tax of one row of `reports.priced`, given facts of its price."""
        if not self.needs_day:
            return {"list": cost}
        at = midnight(row["day"])
        listed = cost
        if price["plan"] != PLAN:
            known = self.listed.get((price["meter"], price["sku"], price["currency"]), [])
            if standard := rating.price_at(known, at):
                listed = standard.amount(row["sum"])
        if not self.needs_tenant:
            return {"list": listed}
        tax = self._tax(row["tenant_id"], price["meter"], at, cost)
        credits = money.ZERO
        for start, end, share in self.paid.get(row["tenant_id"], []):
            if start <= at < end:
                credits = money.EXACT.multiply(money.EXACT.add(cost, tax), share)
        return {"list": listed, "credits": credits, "tax": tax}

    def _tax(self, tenant_id: int, meter: str, at: datetime, cost: Decimal) -> Decimal:
        region = self.regions.get(tenant_id)
        if region is None:
            return money.ZERO
        for rate in self.rates:
            if (
                (rate.region, rate.category) == (region, self.categories[meter])
                and rate.valid_from <= at
                and (rate.valid_to is None or at < rate.valid_to)
            ):
                return money.percent_of(cost, rate.percent)
        return money.ZERO


def price_facts(price_ids: set[int]) -> dict[int, dict[str, Any]]:
    """What reports need of prices, by id."""
    rows = PriceVersion.objects.filter(pk__in=price_ids).values(
        "id", "plan", "meter_id", "sku", "currency", "unit", "unit_size", "unit_price"
    )
    return {row["id"]: {**row, "meter": row["meter_id"]} for row in rows}


def price_values(price_ids: set[int]) -> dict[int, rating.Price]:
    """Prices as the pure code knows them, by id."""
    return {version.pk: version.value for version in PriceVersion.objects.filter(pk__in=price_ids)}


def midnight(day: date) -> datetime:
    """The first instant of a UTC day."""
    return datetime.combine(day, time(), tzinfo=UTC)
