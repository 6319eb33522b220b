"""Invoices of a tenant: the running draft and the frozen ones."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from billing import clock, pdf
from billing.models import Invoice
from billing.services import accounts, invoices
from billing.views.money_pages import beside
from tenants.errors import Invalid, Refused
from tenants.http import Request
from tenants.permissions import require
from tenants.views.common import needs_tenant


@require_GET
@needs_tenant
def invoice_list(request: Request) -> HttpResponse:
    require(request.actor, "invoices.view")
    rows = Invoice.objects.visible_to(request.actor).filter(finalized_at__isnull=False)
    context = {
        "draft": invoices.draft(
            request.actor, request.actor.the_tenant, accounts.this_month(request.actor.the_tenant)
        ).invoice,
        "page_obj": Paginator(rows, 50).get_page(request.GET.get("page")),
    }
    return render(request, "billing/invoices/list.html", context)


@require_GET
def invoice_detail(request: Request, public_id: str) -> HttpResponse:
    document = invoices.find(request.actor, public_id)
    invoice = document.invoice
    if invoice.shown_id != public_id:
        return redirect(invoice)
    now = clock.now()
    context = {
        "document": document,
        "invoice": invoice,
        "rounded_off": invoice.net - document.exact,
        "still_running": invoice.is_draft and now < invoice.period_end,
        "may_finalize": invoice.is_draft and document.lines and request.actor.may("invoices.finalize"),
        "own": request.actor.tenant is not None and request.actor.tenant.pk == invoice.tenant_id,
        **beside(request, invoice),
    }
    return render(request, "billing/invoices/detail.html", context)


@require_GET
def invoice_pdf(request: Request, public_id: str) -> HttpResponse:
    document = invoices.find(request.actor, public_id)
    if document.invoice.is_draft:
        raise Http404
    return HttpResponse(
        pdf.render(document, language=_language(request)),
        content_type="application/pdf",
        headers={"Content-Disposition": f'inline; filename="{document.invoice.number}.pdf"'},
    )


@require_POST
def invoice_finalize(request: Request, public_id: str) -> HttpResponse:
    try:
        invoice = invoices.finalize_shown(
            request.actor,
            public_id,
            early=request.POST.get("early") == "yes",
            period_start=_instant(request.POST.get("period_start", "")),
        )
    except Refused as refusal:
        if refusal.status != 409:
            raise
        messages.error(request, refusal.detail)
        return redirect("billing:invoice_detail", public_id)
    messages.success(request, _("%(number)s is finalized.") % {"number": invoice.number})
    return redirect(invoice)


def _language(request: Request) -> str:
    """Another language than the invoice's own, where the address asks for one we have."""
    asked = request.GET.get("language", "")
    return asked if asked in dict(settings.LANGUAGES) else ""


def _instant(text: str) -> datetime | None:
    """What the form carried; nothing where it carried nothing."""
    try:
        found = parse_datetime(text)
        return found.astimezone(UTC) if found else None
    except (ValueError, OverflowError):
        raise Invalid.at("/period_start", "invalid", _("The request is not valid.")) from None
