"""Staff look after the billing accounts of tenants."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from billing.forms_money import AccountForm, GrantForm, ReasonForm
from billing.models import BillingAccount, PeriodClose
from billing.services import accounts, closing, credits, reconcile
from billing.views.money_pages import about
from billing.views.reports import tabs
from tenants.errors import Refused
from tenants.http import Request
from tenants.permissions import require


@require_GET
def account_list(request: Request) -> HttpResponse:
    require(request.actor, "platform.reports")
    rows = BillingAccount.objects.select_related("tenant").order_by("-parked_at", "tenant__name")
    troubled = PeriodClose.objects.filter(outcome__in=["failed", "waiting"]).select_related("tenant")
    context = {
        "page_obj": Paginator(rows, 50).get_page(request.GET.get("page")),
        "tabs": tabs(request, platform=True),
        "troubled": troubled.order_by("-tried_at")[:20],
    }
    return render(request, "billing/accounts/list.html", context)


@require_GET
def account_detail(request: Request, tenant_id: str) -> HttpResponse:
    account = accounts.find(request.actor, tenant_id)
    return _page(request, account)


@require_POST
def account_change(request: Request, tenant_id: str) -> HttpResponse:
    account = accounts.find(request.actor, tenant_id)
    form = AccountForm(request.POST, instance=account)
    if not form.is_valid():
        return _page(request, accounts.of(account.tenant), form=form, status=422)
    try:
        accounts.change_account(request.actor, account.tenant, **form.cleaned_data)
    except Refused as refusal:
        for fault in refusal.faults:
            name = fault.pointer.strip("/")
            form.add_error(name if name in form.fields else None, fault.detail)
        if not refusal.faults:
            form.add_error(None, refusal.detail)
        return _page(request, accounts.of(account.tenant), form=form, status=422)
    messages.success(request, _("The account is saved."))
    return redirect("billing:report_account", tenant_id)


@require_POST
def account_grant(request: Request, tenant_id: str) -> HttpResponse:
    account = accounts.find(request.actor, tenant_id)
    form = GrantForm(request.POST)
    if not form.is_valid():
        return _page(request, account, grant_form=form, status=422)
    try:
        credits.grant_credit(request.actor, account.tenant, **form.cleaned_data)
    except Refused as refusal:
        form.add_error(None, refusal.detail)
        return _page(request, account, grant_form=form, status=422)
    messages.success(request, _("The credit is added."))
    return redirect("billing:report_account", tenant_id)


@require_POST
def account_unpark(request: Request, tenant_id: str) -> HttpResponse:
    account = accounts.find(request.actor, tenant_id)
    form = ReasonForm(request.POST)
    note = form.cleaned_data["reason"] if form.is_valid() else ""
    wrong = reconcile.check(account.tenant)
    try:
        accounts.unpark(request.actor, account.tenant, note=note)
    except Refused as refusal:
        messages.error(request, refusal.detail)
    else:
        if wrong:
            messages.warning(request, _("The books still disagree: %(why)s") % {"why": wrong[0]})
        else:
            messages.success(request, _("The account is billed again."))
    return redirect("billing:report_account", tenant_id)


@require_POST
def account_close(request: Request, tenant_id: str) -> HttpResponse:
    account = accounts.find(request.actor, tenant_id)
    try:
        made = closing.close_account(request.actor, account.tenant)
    except Refused as refusal:
        if refusal.status != 409:
            raise
        messages.error(request, refusal.detail)
    else:
        messages.success(request, _("The account is closed; %(n)s invoices were made.") % {"n": len(made)})
    return redirect("billing:report_account", tenant_id)


def _page(
    request: Request,
    account: BillingAccount,
    *,
    form: AccountForm | None = None,
    grant_form: GrantForm | None = None,
    status: int = 200,
) -> HttpResponse:
    context: dict[str, Any] = {
        **about(account.tenant, request),
        "form": form or AccountForm(instance=account),
        "grant_form": grant_form or GrantForm(),
        "reason_form": ReasonForm(),
        "closes": PeriodClose.objects.filter(tenant=account.tenant).order_by("-period_start")[:6],
    }
    return render(request, "billing/accounts/detail.html", context, status=status)
