"""What a tenant owes, holds and paid, and what can be done about an invoice."""

from __future__ import annotations

import secrets
from decimal import Decimal
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from billing import clock, csvs, pdf_notes
from billing.forms_money import CreditForm, NoteForm, PaymentForm, ReasonForm
from billing.models import Invoice
from billing.services import (
    accounts,
    credits,
    holds,
    invoices,
    notes,
    payments,
    providers,
    receivables,
    statements,
)
from billing.services.dunning import plan
from tenants.errors import Hidden, Invalid, Refused
from tenants.http import Request
from tenants.models import Tenant
from tenants.permissions import require
from tenants.views.common import needs_tenant


@require_GET
@needs_tenant
def credit(request: Request) -> HttpResponse:
    """The tenant's own money: what is owed, credit, payments and the statement."""
    require(request.actor, "invoices.view")
    context = about(request.actor.the_tenant, request)
    return render(request, "billing/credit/account.html", context)


@require_GET
def statement_csv(request: Request) -> StreamingHttpResponse:
    require(request.actor, "invoices.view")
    tenant = request.actor.the_tenant
    currency = accounts.currency_of(tenant)
    header = ["at", "what", "owed", "credit", "owed_after", "credit_after", "currency"]
    rows = (
        [row.at, row.text, row.owed, row.credit, row.owed_after, row.credit_after, currency]
        for row in statements.statement(tenant)
    )
    return csvs.response(request, f"statement-{tenant.slug}.csv", header, rows)


@require_POST
@needs_tenant
def credit_buy(request: Request) -> HttpResponse:
    require(request.actor, "budgets.manage")
    form = CreditForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("Say how much credit to buy, such as 50.00."))
        return redirect("billing:invoice_credit")
    tenant = request.actor.the_tenant
    done = _try(
        request,
        lambda: payments.buy_credit(request.actor, tenant, **form.cleaned_data),
        _("The payment is made."),
    )
    if done is not None and done.failure:
        messages.error(request, done.failure)
    return redirect("billing:invoice_credit")


@require_POST
def invoice_pay(request: Request, public_id: str) -> HttpResponse:
    invoice = _invoice(request, public_id)
    # a try that failed frees the key; one that was cut off is taken up again
    failed = invoice.payments.filter(status="failed").count()
    key = f"{invoice.public_id}:{failed}:{receivables.outstanding(invoice)}"
    done = _try(
        request,
        lambda: payments.pay_invoice(request.actor, invoice, key=key),
        None,
    )
    if done is not None:
        if done.failure:
            messages.error(request, done.failure)
        else:
            messages.success(request, _("The payment is made."))
    return redirect(invoice)


@require_POST
def invoice_payment(request: Request, public_id: str) -> HttpResponse:
    """Staff: money arrived by hand."""
    invoice = _invoice(request, public_id)
    require(request.actor, "invoices.finalize")
    form = PaymentForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("A payment needs an amount and the reference of the bank."))
        return redirect(invoice)
    data = form.cleaned_data
    _try(
        request,
        lambda: payments.record_payment(
            request.actor, invoice, amount=data["amount"], reference=data["reference"], key=data["reference"]
        ),
        _("The payment is booked."),
    )
    return redirect(invoice)


@require_POST
def invoice_void(request: Request, public_id: str) -> HttpResponse:
    invoice = _invoice(request, public_id)
    require(request.actor, "invoices.finalize")
    form = ReasonForm(request.POST)
    reason = form.cleaned_data["reason"] if form.is_valid() else ""
    text = _("%(number)s is void; its usage is billed anew.") % {"number": invoice.number}
    _try(request, lambda: invoices.void(request.actor, invoice, reason=reason), text)
    return redirect(invoice)


@require_POST
def invoice_note(request: Request, public_id: str) -> HttpResponse:
    """Staff: a credit note over the amounts given for lines."""
    invoice = _invoice(request, public_id)
    require(request.actor, "invoices.finalize")
    form = NoteForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("A credit note needs a reason and what happens with the rest."))
        return redirect(invoice)
    amounts: dict[int, Decimal] = {}
    for name, text in request.POST.items():
        if name.startswith("line-") and str(text).strip():
            try:
                amounts[int(name[5:])] = Decimal(str(text).strip())
            except (ValueError, ArithmeticError):
                raise Invalid.at(f"/{name}", "invalid", _("Enter a number.")) from None
    note = _try(
        request,
        lambda: notes.issue_note(request.actor, invoice, amounts=amounts, **form.cleaned_data),
        _("The credit note is issued."),
    )
    return redirect(note if note is not None else invoice)


@require_GET
def note_detail(request: Request, public_id: str) -> HttpResponse:
    note = notes.find(request.actor, public_id)
    context = {
        "note": note,
        "lines": note.lines.select_related("line"),
        "taxes": note.taxes.all(),
        "refunds": note.refunds.all(),
        # who of the house it was is the house's business
        "issuer": notes.issuers([note]).get(note.public_id, "") if request.actor.is_staff else "",
        "own": request.actor.tenant is not None and request.actor.tenant.pk == note.tenant_id,
    }
    return render(request, "billing/invoices/note.html", context)


@require_GET
def note_pdf(request: Request, public_id: str) -> HttpResponse:
    note = notes.find(request.actor, public_id)
    return HttpResponse(
        pdf_notes.render(note),
        content_type="application/pdf",
        headers={"Content-Disposition": f'inline; filename="{note.number}.pdf"'},
    )


@login_not_required
@csrf_exempt
@require_POST
def stripe_message(request: Request) -> HttpResponse:
    """Stripe's webhook: signed, so no session and no CSRF token; a refusal makes Stripe try again."""
    try:
        outcome = payments.receive(
            "stripe", body=request.body, signature=request.headers.get("Stripe-Signature", "")
        )
    except Invalid as refusal:
        return HttpResponse(refusal.detail, status=400, content_type="text/plain")
    return HttpResponse(outcome, content_type="text/plain")


def about(tenant: Tenant, request: Request) -> dict[str, Any]:
    """Everything the money page of one tenant shows; the same for itself and for staff."""
    account = accounts.of(tenant)
    now = clock.now()
    unpaid = receivables.open_invoices(tenant)
    grants = credits.readable_by(request.actor, tenant)
    return {
        "tenant": tenant,
        "account": account,
        "currency": account.currency,
        "now": now,
        "unpaid": unpaid,
        "owed": sum((left for _invoice, left in unpaid), Decimal(0)),
        "overdue": [invoice for invoice, _left in unpaid if invoice.due_at and invoice.due_at < now],
        "balance": credits.balance(tenant, now=now),
        "spendable": max(credits.spendable(tenant), Decimal(0)),
        "held": holds.held_of(tenant),
        "accrued": credits.accrued(tenant),
        "grants": grants,
        "payments": payments.readable_by(request.actor).filter(tenant=tenant).select_related("invoice")[:20],
        "page_obj": Paginator(statements.statement(tenant), 50).get_page(request.GET.get("page")),
        "by_card": providers.chosen().key != "manual" and bool(account.customer),
        "takes_cards": providers.chosen().key != "manual",
        "may_manage": request.actor.may("budgets.manage"),
        "buy_key": secrets.token_hex(8),
    }


def beside(request: Request, invoice: Invoice) -> dict[str, Any]:
    """What the page of a frozen invoice says besides its lines."""
    if invoice.is_draft:
        return {}
    left = receivables.outstanding(invoice)
    staff = request.actor.may("invoices.finalize")
    return {
        "left": left,
        "payments": invoice.payments.all(),
        "notes": invoice.notes.all(),
        "uses": [use for use in invoice.credit_uses.select_related("grant") if use.amount],
        "plan": plan(invoice) if left > 0 else [],
        "overdue": left > 0 and invoice.due_at is not None and invoice.due_at < clock.now(),
        "rooms": [room for room in notes.rooms(invoice) if room.left > 0] if staff else [],
        "may_book": staff and not invoice.is_void,
        "by_card": left > 0
        and providers.chosen().key != "manual"
        and bool(accounts.of(invoice.tenant).customer)
        and request.actor.may("budgets.manage"),
        "payment_form": PaymentForm(initial={"amount": left}),
        "note_form": NoteForm(),
        "reason_form": ReasonForm(),
    }


def _invoice(request: Request, public_id: str) -> Invoice:
    found = invoices.readable_by(request.actor).filter(public_id=public_id).first()
    if found is None:
        raise Hidden
    return found


def _try(request: Request, act: Any, done: str | None) -> Any:
    """Act; a refusal that a person can do something about is told on the page they came from."""
    try:
        result = act()
    except Refused as refusal:
        if refusal.status not in {409, 422, 503}:
            raise
        messages.error(request, refusal.detail)
        return None
    if done:
        messages.success(request, done)
    return result
