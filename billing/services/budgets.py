"""How much a tenant wants to spend in a month, and what happens at the line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from billing import clock, money
from billing.errors import BudgetReached
from billing.models import Budget, BudgetAlert, BudgetMode
from billing.months import Month
from billing.services import reports
from tenants import audit, outbox
from tenants.actor import Actor
from tenants.errors import Invalid
from tenants.models import Membership, Tenant
from tenants.permissions import require
from tenants.roles import Role

THRESHOLDS = (50, 80, 100)  # per cent; each is told once a month


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A budget beside what is spent of it."""

    budget: Budget
    spent: Decimal

    @property
    def left(self) -> Decimal:
        return self.budget.amount - self.spent

    @property
    def reached(self) -> bool:
        return self.spent >= self.budget.amount

    @property
    def percent(self) -> int:
        """Whole per cent of the budget that is spent, rounded down."""
        return int(self.spent * 100 // self.budget.amount)


def standing(tenant: Tenant) -> Standing | None:
    """This month's spend beside the budget, or None where there is no budget."""
    budget = Budget.objects.filter(tenant=tenant).first()
    return Standing(budget=budget, spent=reports.month_to_date(tenant)) if budget else None


def ensure_can_spend(tenant: Tenant, *, high_estimate: Decimal) -> None:
    """Refuse new work whose high estimate would pass a budget that blocks; advice only for mode notify."""
    found = standing(tenant)
    if found is None or found.budget.mode == BudgetMode.NOTIFY:
        return
    if found.reached or found.spent + high_estimate > found.budget.amount:
        raise BudgetReached(
            _(
                "The monthly budget of %(tenant)s is %(budget)s, %(spent)s of it is spent and this may cost "
                "up to %(high)s. Lower its limits, raise the budget on the Usage page, or wait for "
                "the next month."
            )
            % {
                "tenant": tenant.name,
                "budget": _amount(found.budget.amount),
                "spent": _amount(found.spent),
                "high": _amount(high_estimate),
            }
        )


def should_stop(tenant: Tenant, *, subject: str, max_spend: Decimal | None) -> bool:
    """Whether a running subject must stop: its own limit is reached, or the tenant's budget in mode stop."""
    if max_spend is not None and reports.cost_of(tenant, subject) >= max_spend:
        return True
    budget = Budget.objects.filter(tenant=tenant, mode=BudgetMode.STOP).first()
    return budget is not None and reports.month_to_date(tenant) >= budget.amount


def review(tenant: Tenant) -> bool:
    """Tell of thresholds just crossed; True if the budget says stop. Called when usage is written."""
    found = standing(tenant)
    if found is None:
        return False
    window = Month.of(clock.now()).first
    told = set(found.budget.alerts.filter(window_start=window).values_list("percent", flat=True))
    due = [percent for percent in THRESHOLDS if percent <= found.percent and percent not in told]
    if due:
        _tell(tenant, found, due, window)
    return found.reached and found.budget.mode == BudgetMode.STOP


def set_budget(actor: Actor, *, amount: Decimal, mode: str) -> Budget:
    """Give the active tenant a monthly budget, or change it."""
    require(actor, "budgets.manage")
    if mode not in BudgetMode.values:
        raise Invalid.at(
            "/mode", "unknown", _("Known modes: %(known)s.") % {"known": ", ".join(BudgetMode.values)}
        )
    if not amount.is_finite() or amount <= 0 or amount >= Decimal(10) ** 12:
        raise Invalid.at("/amount", "invalid", _("A budget is more than zero."))
    if amount != money.round_line(amount, settings.CURRENCY):
        raise Invalid.at(
            "/amount", "too_fine", _("Too many decimals for %(currency)s.") % {"currency": settings.CURRENCY}
        )
    with transaction.atomic():
        budget, _made = Budget.objects.update_or_create(
            tenant=actor.tenant, defaults={"amount": amount, "mode": mode, "updated_at": clock.now()}
        )
        # another amount is another line to cross: tell again
        budget.alerts.filter(window_start=Month.of(clock.now()).first).delete()
        audit.record(actor, "budget.set", budget, amount=str(amount), mode=mode)
    return budget


def remove_budget(actor: Actor) -> None:
    """Let the active tenant spend without a budget."""
    require(actor, "budgets.manage")
    with transaction.atomic():
        for budget in Budget.objects.select_for_update().filter(tenant=actor.tenant):
            audit.record(actor, "budget.removed", budget)
            budget.delete()


def _tell(tenant: Tenant, found: Standing, due: list[int], window: date) -> None:
    # two beats may cross the line together: the unique constraint lets one of them speak
    new = [
        percent
        for percent in due
        if BudgetAlert.objects.get_or_create(budget=found.budget, window_start=window, percent=percent)[1]
    ]
    if not new:
        return
    who = Membership.objects.filter(
        tenant=tenant, role__in=[Role.OWNER, Role.BILLING], user__is_active=True
    ).select_related("user")
    for member in who:
        outbox.mail(
            member.user.email,
            _("%(tenant)s has spent %(percent)s %% of its budget")
            % {"tenant": tenant.name, "percent": max(new)},
            _("%(spent)s of %(budget)s is spent this month. %(mode)s\n%(url)s/usage/")
            % {
                "spent": _amount(found.spent),
                "budget": _amount(found.budget.amount),
                "mode": found.budget.get_mode_display(),
                "url": settings.BASE_URL,
            },
        )


def _amount(amount: Decimal) -> str:
    return f"{money.round_line(amount, settings.CURRENCY):,} {settings.CURRENCY}"
