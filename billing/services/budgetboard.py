"""Every budget of a scope beside what is spent of it, with what was told and what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from billing import clock, money
from billing.models import Budget, BudgetMode, UsageHour
from billing.months import Month
from billing.services import accounts, budgets
from billing.services.scopes import Scope
from tenants.models import Membership, Tenant

MARKS = budgets.THRESHOLDS
LOOK_BACK = timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One budget, this month."""

    budget: Budget
    tenant: Tenant
    spent: Decimal
    currency: str
    told: tuple[int, ...]  # thresholds that were mailed this month

    @property
    def percent(self) -> int:
        return int(self.spent * 100 // self.budget.amount)

    @property
    def tone(self) -> str:
        return "bad" if self.percent >= 100 else "warn" if self.percent >= 80 else "ok"

    @property
    def left(self) -> Decimal:
        return max(money.EXACT.subtract(self.budget.amount, self.spent), money.ZERO)

    @property
    def next_mark(self) -> int | None:
        """The next threshold that will be told; None when all were."""
        return next((mark for mark in MARKS if mark > self.percent), None)

    @property
    def acts(self) -> bool:
        """Whether it does more than tell."""
        return self.budget.mode != BudgetMode.NOTIFY


def boards(scope: Scope) -> list[Board]:
    """Budgets of the running month, the fullest first."""
    window: date = Month.of(clock.now()).first
    tenants = Tenant.objects.filter(pk__in=scope.rows(Budget.objects.all()).values("tenant"))
    found = []
    for tenant in tenants:
        currency = accounts.currency_of(tenant)
        for one in budgets.standings(tenant):
            told = one.budget.alerts.filter(window_start=window).order_by("percent")
            found.append(
                Board(
                    budget=one.budget,
                    tenant=tenant,
                    spent=one.spent,
                    currency=currency,
                    told=tuple(told.values_list("percent", flat=True)),
                )
            )
    return sorted(found, key=lambda one: (-one.percent, one.budget.pk))


def offered(tenant: Tenant) -> list[str]:
    """Whom a budget may name: the tenant's people, then the labels its usage of the last 90 days carries."""
    people = Membership.objects.filter(tenant=tenant).order_by("user__email")
    hours = UsageHour.objects.filter(tenant=tenant, hour__gte=clock.now() - LOOK_BACK).exclude(labels={})
    pairs = {
        f"{key}={value}"
        for one in hours.values_list("labels", flat=True).distinct()
        for key, value in one.items()
    }
    return [*people.values_list("user__email", flat=True), *sorted(pairs)]
