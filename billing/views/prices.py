"""Prices and tax rates, for whoever manages them: what is in force, and the next one from a day on."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from billing import clock, money, tariffs
from billing.forms_prices import PriceForm, TaxForm
from billing.models import Meter
from billing.services import prices, taxes
from billing.views.reports import tabs
from tenants.errors import Refused
from tenants.http import Request
from tenants.permissions import require

SHOWN = (1, 100, 10_000)  # natural units of the preview


@require_http_methods(["GET", "HEAD", "POST"])
def price_list(request: Request) -> HttpResponse:
    require(request.actor, "prices.manage")
    if request.method != "POST":
        return _price_page(request, PriceForm())
    form = PriceForm(request.POST)
    if form.is_valid():
        said = form.cleaned_data
        try:
            prices.set_price(
                request.actor, meter=said["meter"].key, sku=said["sku"], plan=said["plan"],
                valid_from=said["valid_from"], **form.tariff,
            )  # fmt: skip
        except Refused as refusal:
            _add(form, refusal)
        else:
            messages.success(request, _("The price is set."))
            return redirect("billing:report_prices")
    return _price_page(request, form, status=422)


def price_preview(request: Request) -> HttpResponse:
    """What 1, 100 and 10,000 natural units would cost, for what is filled in so far."""
    require(request.actor, "prices.manage")  # before the method: a stranger learns nothing of it
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    return render(request, "billing/prices/_preview.html", _preview(PriceForm(request.POST)))


@require_http_methods(["GET", "HEAD", "POST"])
def tax_list(request: Request) -> HttpResponse:
    require(request.actor, "prices.manage")
    if request.method != "POST":
        return _tax_page(request, TaxForm())
    form = TaxForm(request.POST)
    if form.is_valid():
        try:
            taxes.set_rate(request.actor, **form.cleaned_data)
        except Refused as refusal:
            _add(form, refusal)
        else:
            messages.success(request, _("The tax rate is set."))
            return redirect("billing:report_taxes")
    return _tax_page(request, form, status=422)


def _price_page(request: Request, form: PriceForm, *, status: int = 200) -> HttpResponse:
    now, known = clock.now(), prices.now_and_later()
    rows = [
        {
            "price": one,
            "tiers": tariffs.read_tiers(one.tiers) if one.tiers else (),
            "included": money.EXACT.divide(one.included, one.unit_size),
            "is_later": one.valid_from > now,
        }
        for one in known
    ]
    context = {
        "tabs": tabs(request, platform=True),
        "rows": rows,
        "form": form,
        "plans": sorted({one.plan for one in known}),
        **_preview(form if form.is_bound else PriceForm(_shown(form))),
    }
    return render(request, "billing/prices/list.html", context, status=status)


def _tax_page(request: Request, form: TaxForm, *, status: int = 200) -> HttpResponse:
    now = clock.now()
    rows = [
        {
            "rate": one,
            "is_later": one.valid_from > now,
            "is_over": one.valid_to is not None and one.valid_to <= now,
        }
        for one in taxes.rates()
    ]
    context = {"tabs": tabs(request, platform=True), "rows": rows, "form": form, "known": TaxForm.known()}
    return render(request, "billing/prices/taxes.html", context, status=status)


def _preview(form: PriceForm) -> dict[str, Any]:
    if not form.is_valid():
        return {"amounts": [], "preview_problem": _("Fill in the price to see what it comes to.")}
    meter: Meter = form.cleaned_data["meter"]
    try:
        amounts = prices.preview(SHOWN, natural_size=meter.natural_size, **form.tariff)
    except Refused as refusal:
        return {"amounts": [], "preview_problem": refusal.detail}
    return {
        "amounts": amounts,
        "preview_unit": meter.natural_unit,
        "preview_currency": form.cleaned_data["currency"],
    }


def _shown(form: PriceForm) -> dict[str, Any]:
    """The values an untouched form shows."""
    return {name: form[name].value() for name in form.fields if form[name].value() is not None}


def _add(form: forms.Form, refusal: Refused) -> None:
    """Show each fault at the field it speaks of."""
    for fault in refusal.faults:
        name = fault.pointer.strip("/")
        form.add_error(name if name in form.fields else None, fault.detail)
    if not refusal.faults:
        form.add_error(None, refusal.detail)
