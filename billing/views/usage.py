"""What the active tenant used and spent."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from billing import clock, csvs, money
from billing.forms import BudgetForm
from billing.models import Budget, Meter
from billing.months import Month
from billing.services import budgets, overview, reports, scopes
from billing.views.reports import tabs
from tenants.actor import Actor
from tenants.http import Request
from tenants.permissions import require
from tenants.views.common import needs_tenant

COLUMNS = [
    "day", "subject", "title", "user", "meter", "sku", "quantity", "unit",
    "price_quantity", "price_unit", "unit_price", "cost", "currency",
]  # fmt: skip


@require_GET
@needs_tenant
def usage(request: Request) -> HttpResponse:
    require(request.actor, "usage.view")
    return _page(request, _month(request))


@require_GET
def usage_csv(request: Request) -> StreamingHttpResponse:
    require(request.actor, "usage.view")
    tenant, month = request.actor.the_tenant, _month(request)
    rows = (
        [
            row["day"], row["subject"], row["subject_title"], row["user_label"], row["price__meter"],
            row["price__sku"], row["sum"], row["price__meter__unit"],
            money.EXACT.divide(row["sum"], row["price__unit_size"]), row["price__unit"],
            row["price__unit_price"], row["cost"], row["price__currency"],
        ]
        for row in reports.usage_rows(tenant, month)
    )  # fmt: skip
    return csvs.response(request, f"usage-{tenant.slug}-{month}.csv", COLUMNS, rows)


@require_POST
@needs_tenant
def budget_set(request: Request) -> HttpResponse:
    require(request.actor, "budgets.manage")
    form = BudgetForm(request.POST)
    if not form.is_valid():
        return _page(request, Month.of(clock.now()), form=form, status=422)
    budgets.set_budget(request.actor, **form.cleaned_data)
    messages.success(request, _("The budget is set."))
    return redirect("billing:usage")


@require_POST
@needs_tenant
def budget_remove(request: Request) -> HttpResponse:
    budgets.remove_budget(request.actor)
    messages.success(request, _("The budget is removed."))
    return redirect("billing:usage")


def _page(
    request: Request, month: Month, *, form: BudgetForm | None = None, status: int = 200
) -> HttpResponse:
    actor: Actor = request.actor
    now = clock.now()
    current = Month.of(now)
    spent = reports.month_to_date(actor.the_tenant, month)
    standing = budgets.standing(actor.the_tenant) if actor.may("budgets.view") else None
    budget = standing.budget if standing else None
    subjects = reports.spend_by_subject(actor.the_tenant, month)
    context = {
        "tabs": tabs(request, platform=False),
        "month": month,
        "is_current": month == current,
        "previous": month.previous,
        "next": month.next if month < current else None,
        "spent": spent,
        "before": reports.month_to_date(actor.the_tenant, month.previous),
        "forecast": overview.forecast(scopes.own(actor), spent, now) if month == current else None,
        "standing": standing if month == current else None,
        "tone": _tone(standing.percent) if standing else "ok",
        "left": max(standing.left, money.ZERO) if standing else None,
        "chart": _chart(actor, month),
        "subjects": subjects,
        "page_obj": Paginator(subjects, 50).get_page(request.GET.get("page")),
        "page_query": f"month={month}&",
        "currency": settings.CURRENCY,
        "budget": budget,
        "may_manage": actor.may("budgets.manage"),
        "form": form or BudgetForm(initial=_initial(budget)),
    }
    return render(request, "billing/usage/month.html", context, status=status)


def _month(request: Request) -> Month:
    if not (text := request.GET.get("month")):
        return Month.of(clock.now())
    try:
        return Month.parse(text)
    except ValueError as error:
        raise Http404 from error


def _chart(actor: Actor, month: Month) -> dict[str, Any]:
    days = reports.spend_by_day(actor.the_tenant, month)
    titles = dict(Meter.objects.order_by("key").values_list("key", "title"))
    spent = {key: money.total([costs.get(key, money.ZERO) for costs in days.values()]) for key in titles}
    # the dearest first, as in the platform's report: the same meter has the same place and colour
    used = sorted((key for key in titles if spent[key]), key=lambda key: (-spent[key], key))
    return {
        "labels": [str(day.day) for day in days],
        "series": [
            {"name": _(titles[key]), "values": [costs.get(key, money.ZERO) for costs in days.values()]}
            for key in used
        ],
        "unit": settings.CURRENCY,
    }


def _tone(percent: int) -> str:
    return "bad" if percent >= 100 else "warn" if percent >= 80 else "ok"


def _initial(budget: Budget | None) -> dict[str, Any]:
    if budget is None:
        return {}
    return {"amount": money.text(budget.amount, settings.CURRENCY), "mode": budget.mode}
