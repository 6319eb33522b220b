"""Budgets of a tenant, its people and its labels: what is spent of each, and how to set and remove one."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from billing import clock, money
from billing.forms import ScopedBudgetForm
from billing.models import Budget, BudgetScope
from billing.months import Month
from billing.services import accounts, budgetboard, budgets, scopes
from billing.views.reports import report_page, scope_of, tabs
from tenants.errors import Invalid
from tenants.http import Request
from tenants.permissions import require
from tenants.views.common import needs_tenant


@report_page
def budget_list(request: Request, *, platform: bool) -> HttpResponse:
    scope = scope_of(request, platform=platform, permission="budgets.view")
    if platform:
        return render(request, "billing/reports/budgets.html", _around(request, scope, platform=True))
    return _own_page(request)


@require_POST
@needs_tenant
def budget_save(request: Request) -> HttpResponse:
    require(request.actor, "budgets.manage")
    form = ScopedBudgetForm(request.POST)
    if not form.is_valid():
        return _own_page(request, form, status=422)
    try:
        budgets.set_budget(request.actor, **form.cleaned_data)
    except Invalid as refusal:
        for fault in refusal.faults:
            name = fault.pointer.strip("/")
            form.add_error(name if name in form.fields else None, fault.detail)
        return _own_page(request, form, status=422)
    messages.success(request, _("The budget is set."))
    return redirect("billing:usage_budgets")


@require_POST
@needs_tenant
def budget_drop(request: Request) -> HttpResponse:
    scope, value = request.POST.get("scope", ""), request.POST.get("value", "").replace("\0", "")
    budgets.remove_budget(request.actor, scope=scope, value=value)
    messages.success(request, _("The budget is removed."))
    return redirect("billing:usage_budgets")


def _own_page(request: Request, form: ScopedBudgetForm | None = None, *, status: int = 200) -> HttpResponse:
    scope = scopes.own(request.actor, permission="budgets.view")
    tenant = request.actor.the_tenant
    may_manage = request.actor.may("budgets.manage")
    context = {
        **_around(request, scope, platform=False),
        "may_manage": may_manage,
        "form": form or ScopedBudgetForm(initial=_asked_for(request)),
        "offered": budgetboard.offered(tenant) if may_manage else [],
        "currency": accounts.currency_of(tenant),
    }
    return render(request, "billing/reports/budgets.html", context, status=status)


def _around(request: Request, scope: scopes.Scope, *, platform: bool) -> dict[str, Any]:
    return {
        "platform": platform,
        "tabs": tabs(request, platform=platform),
        "boards": budgetboard.boards(scope),
        "marks": budgetboard.MARKS,
        "month": Month.of(clock.now()),
    }


def _asked_for(request: Request) -> dict[str, Any]:
    """The budget a link names, to be changed; else an empty form."""
    scope, value = request.GET.get("scope", ""), request.GET.get("value", "").replace("\0", "")
    if scope not in BudgetScope.values:
        return {}
    found = Budget.objects.filter(tenant=request.actor.tenant, scope=scope, scope_value=value).first()
    if found is None:
        return {"scope": scope, "value": value}
    amount = money.text(found.amount, settings.CURRENCY)
    return {"scope": scope, "value": value, "amount": amount, "mode": found.mode}
