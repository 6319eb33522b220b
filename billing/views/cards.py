"""The card of a tenant: to the provider's page and back."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from billing.services import cards
from tenants.errors import Refused
from tenants.http import Request
from tenants.permissions import require
from tenants.views.common import needs_tenant


@require_POST
@needs_tenant
def card_new(request: Request) -> HttpResponse:
    """Lead on by a link: a form may not send a person to another site."""
    require(request.actor, "budgets.manage")
    try:
        url = cards.begin_card(
            request.actor,
            done=request.build_absolute_uri(reverse("billing:invoice_card_done")),
            back=request.build_absolute_uri(reverse("billing:invoice_credit")),
        )
    except Refused as refusal:
        if refusal.status not in {409, 503}:
            raise
        messages.error(request, refusal.detail)
        return redirect("billing:invoice_credit")
    return render(request, "billing/credit/card.html", {"url": url})


@require_GET
@needs_tenant
def card_done(request: Request) -> HttpResponse:
    """Where the provider sends people back to; it is asked itself whether there is a card."""
    require(request.actor, "budgets.manage")
    try:
        cards.keep_card(request.actor, session=request.GET.get("session", ""))
    except Refused as refusal:
        if refusal.status not in {409, 503}:
            raise
        messages.error(request, refusal.detail)
    else:
        messages.success(request, _("This card pays from now on."))
    return redirect("billing:invoice_credit")
