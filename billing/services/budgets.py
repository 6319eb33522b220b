"""How much a tenant wants to spend in a month, as a whole, by person or by label, and what happens at the line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from billing import clock, money
from billing.errors import BudgetReached, UnpaidInvoices
from billing.models import (
    Allocation,
    Budget,
    BudgetAlert,
    BudgetMode,
    BudgetScope,
    Hold,
    UsageDay,
    UsageHour,
)
from billing.models import (
    Standing as AccountStanding,
)
from billing.months import Month
from billing.services import accounts, holds, reports
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
    """This month's spend beside the budget of the whole tenant, or None where there is none."""
    budget = Budget.objects.filter(tenant=tenant, scope=BudgetScope.TENANT).first()
    return Standing(budget=budget, spent=reports.month_to_date(tenant)) if budget else None


def standings(tenant: Tenant) -> list[Standing]:
    """Every budget of a tenant beside what is spent of it: the whole first, then people, then labels."""
    order = list(BudgetScope.values)
    budgets = sorted(
        Budget.objects.filter(tenant=tenant), key=lambda one: (order.index(one.scope), one.scope_value)
    )
    return [Standing(budget=budget, spent=_spent(budget)) for budget in budgets]


def ensure_can_spend(
    tenant: Tenant,
    *,
    high_estimate: Decimal,
    user_label: str = "",
    labels: Mapping[str, str] | None = None,
    held: Decimal = money.ZERO,
) -> None:
    """Refuse new work that unpaid invoices, used-up credit or a blocking budget leave no room for.

    `held` is what other work has set aside already. A budget of mode notify only advises.
    """
    if accounts.of(tenant).standing != AccountStanding.GOOD:
        raise UnpaidInvoices
    holds.ensure_credit(tenant, amount=money.ZERO)
    budgets = Budget.objects.filter(tenant=tenant).exclude(mode=BudgetMode.NOTIFY)
    for budget in budgets:
        if not applies(budget, user_label, labels):
            continue
        found = Standing(budget=budget, spent=_spent(budget))
        others = held
        if held and budget.scope != BudgetScope.TENANT:
            others = _held_on(budget)
        if found.reached or found.spent + others + high_estimate > budget.amount:
            raise _no_room(tenant, found, high_estimate)


def _held_on(budget: Budget) -> Decimal:
    """What running work that counts on this budget has set aside and not used yet."""
    running = Allocation.objects.filter(tenant=budget.tenant, hold__isnull=False, hold__released_at=None)
    found = {
        hold: amount - captured
        for hold, amount, captured, user, labels in running.values_list(
            "hold_id", "hold__amount", "hold__captured", "user_label", "labels"
        )
        if applies(budget, user, labels)
    }
    return sum(found.values(), money.ZERO)


def reserve(
    tenant: Tenant,
    *,
    source: str,
    amount: Decimal,
    high_estimate: Decimal,
    user_label: str = "",
    labels: Mapping[str, str] | None = None,
) -> Hold:
    """Let one piece of work begin: under one lock, check every limit and set `amount` aside for it."""
    with transaction.atomic():
        accounts.lock(tenant)
        held = holds.held_of(tenant)
        ensure_can_spend(tenant, high_estimate=high_estimate, user_label=user_label, labels=labels, held=held)
        return holds.place_hold(tenant, source=source, amount=amount)


def should_stop(tenant: Tenant, *, subject: str, max_spend: Decimal | None) -> bool:
    """Whether a running subject must stop: its own limit, a budget in mode stop, its credit or its standing."""
    if max_spend is not None and reports.cost_of(tenant, subject) >= max_spend:
        return True
    if must_stop(tenant):
        return True
    stopping = Budget.objects.filter(tenant=tenant, mode=BudgetMode.STOP)
    if not stopping:
        return False
    held = Allocation.objects.open().filter(tenant=tenant, subject=subject).first()
    user, labels = (held.user_label, held.labels) if held else ("", {})
    return any(applies(budget, user, labels) and _spent(budget) >= budget.amount for budget in stopping)


def must_stop(tenant: Tenant) -> bool:
    """Whether everything of a tenant must stop: invoices long unpaid, or credit used up."""
    return accounts.of(tenant).standing == AccountStanding.STOP or holds.is_out_of_credit(tenant)


def review(tenant: Tenant, *, user_label: str = "", labels: Mapping[str, str] | None = None) -> bool:
    """Tell of thresholds just crossed; True if a budget of this work says stop. Called when usage is written."""
    known = standings(tenant)
    if not known:  # most batches of usage end here: not even the clock is read
        return False
    window = Month.of(clock.now()).first
    stop = False
    for found in known:
        told = set(found.budget.alerts.filter(window_start=window).values_list("percent", flat=True))
        due = [percent for percent in THRESHOLDS if percent <= found.percent and percent not in told]
        if due:
            _tell(tenant, found, due, window)
        mine = applies(found.budget, user_label, labels)
        stop = stop or (mine and found.reached and found.budget.mode == BudgetMode.STOP)
    return stop


def applies(budget: Budget, user_label: str, labels: Mapping[str, str] | None) -> bool:
    """Whether work of this person with these labels counts on a budget."""
    if budget.scope == BudgetScope.USER:
        return budget.scope_value == user_label
    if budget.scope == BudgetScope.LABEL:
        key, _equals, value = budget.scope_value.partition("=")
        return (labels or {}).get(key) == value
    return True


def set_budget(
    actor: Actor, *, amount: Decimal, mode: str, scope: str = BudgetScope.TENANT, value: str = ""
) -> Budget:
    """Give the active tenant a monthly budget, or change it; of a person's work or a label where it says so."""
    require(actor, "budgets.manage")
    tenant = actor.the_tenant
    currency = accounts.currency_of(tenant)
    if mode not in BudgetMode.values:
        raise Invalid.at(
            "/mode", "unknown", _("Known modes: %(known)s.") % {"known": ", ".join(BudgetMode.values)}
        )
    if not amount.is_finite() or amount <= 0 or amount >= Decimal(10) ** 12:
        raise Invalid.at("/amount", "invalid", _("A budget is more than zero."))
    if amount != money.round_line(amount, currency):
        raise Invalid.at(
            "/amount", "too_fine", _("Too many decimals for %(currency)s.") % {"currency": currency}
        )
    value = _checked_scope(tenant, scope, value)
    with transaction.atomic():
        budget, _made = Budget.objects.update_or_create(
            tenant=tenant,
            scope=scope,
            scope_value=value,
            defaults={"amount": amount, "mode": mode, "updated_at": clock.now()},
        )
        # another amount is another line to cross: tell again
        budget.alerts.filter(window_start=Month.of(clock.now()).first).delete()
        audit.record(actor, "budget.set", budget, amount=str(amount), mode=mode, scope=scope, of=value)
    return budget


def _checked_scope(tenant: Tenant, scope: str, value: str) -> str:
    value = value.strip()
    if scope == BudgetScope.TENANT:
        if value:
            raise Invalid.at("/value", "not_wanted", _("A budget of everything names nobody and no label."))
        return ""
    if scope == BudgetScope.USER:
        found = (
            Membership.objects.filter(tenant=tenant, user__email__iexact=value).select_related("user").first()
        )
        if found is None:
            raise Invalid.at("/value", "unknown", _("Nobody in this tenant has this e-mail address."))
        return str(found.user.email)
    if scope == BudgetScope.LABEL:
        key, equals, rest = value.partition("=")
        if not (equals and key.strip() and rest.strip()) or len(value) > 200:
            raise Invalid.at("/value", "invalid", _("Write a label as key=value."))
        return f"{key.strip()}={rest.strip()}"
    text = _("Known scopes: %(known)s.") % {"known": ", ".join(BudgetScope.values)}
    raise Invalid.at("/scope", "unknown", text)


def remove_budget(actor: Actor, *, scope: str = BudgetScope.TENANT, value: str = "") -> None:
    """Let the active tenant, a person or a label spend without a budget."""
    require(actor, "budgets.manage")
    with transaction.atomic():
        budgets = Budget.objects.select_for_update().filter(
            tenant=actor.tenant, scope=scope, scope_value=value
        )
        for budget in budgets:
            audit.record(actor, "budget.removed", budget)
            budget.delete()


def _spent(budget: Budget) -> Decimal:
    """This month's spend on a budget, with what runs right now."""
    tenant, now = budget.tenant, clock.now()
    if budget.scope == BudgetScope.TENANT:
        return reports.month_to_date(tenant)
    month, currency = Month.of(now), accounts.currency_of(tenant)
    running = Allocation.objects.open().filter(tenant=tenant)
    if budget.scope == BudgetScope.USER:
        days = UsageDay.objects.filter(tenant=tenant, user_label=budget.scope_value)
        rows = days.between(month.first, month.next.first)
        settled = money.total([cost for _row, cost in reports.priced(rows, currency=currency)])
        running = running.filter(user_label=budget.scope_value)
    else:
        key, _equals, value = budget.scope_value.partition("=")
        hours = UsageHour.objects.filter(tenant=tenant, labels__contains={key: value})
        settled = reports.cost_of_hours(hours.between(month.start, month.end), currency)
        running = running.filter(labels__contains={key: value})
    return money.total([settled, reports.unsettled(running, since=month.start, now=now)])


def _no_room(tenant: Tenant, found: Standing, high_estimate: Decimal) -> BudgetReached:
    currency = accounts.currency_of(tenant)
    budget = found.budget
    text = _(
        "The monthly budget of %(tenant)s is %(budget)s, %(spent)s of it is spent and this may cost "
        "up to %(high)s. Lower its limits, raise the budget on the Usage page, or wait for "
        "the next month."
    )
    return BudgetReached(
        text
        % {
            "tenant": budget.scope_value or tenant.name,
            "budget": _amount(budget.amount, currency),
            "spent": _amount(found.spent, currency),
            "high": _amount(high_estimate, currency),
        }
    )


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
    currency = accounts.currency_of(tenant)
    for member in who:
        outbox.mail(
            member.user.email,
            _("%(tenant)s has spent %(percent)s %% of its budget")
            % {"tenant": found.budget.scope_value or tenant.name, "percent": max(new)},
            _("%(spent)s of %(budget)s is spent this month. %(mode)s\n%(url)s/usage/")
            % {
                "spent": _amount(found.spent, currency),
                "budget": _amount(found.budget.amount, currency),
                "mode": found.budget.get_mode_display(),
                "url": settings.BASE_URL,
            },
        )


def _amount(amount: Decimal, currency: str) -> str:
    return f"{money.round_line(amount, currency):,} {currency}"
