"""Money comes in and goes back: booked once, whoever tells us of it and however often."""

from __future__ import annotations

import hashlib
import logging
from decimal import Decimal

from django.db import IntegrityError, transaction
from django.db.models import QuerySet, Sum
from django.utils.translation import gettext as _

from billing import clock, money
from billing.models import (
    AccountKind,
    CreditKind,
    CreditNote,
    Invoice,
    Payment,
    ProviderEvent,
    Refund,
)
from billing.services import accounts, credits, ledger, providers, receivables
from billing.services.providers import Answer, Told
from billing.states import InvoiceStatus, PaymentStatus
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Invalid
from tenants.lifecycle import move
from tenants.models import Tenant
from tenants.permissions import require

log = logging.getLogger(__name__)


def readable_by(actor: Actor) -> QuerySet[Payment]:
    """Payments this actor may read: their tenant's; staff with reports read all."""
    if actor.may("platform.reports"):
        return Payment.objects.all()  # type: ignore[no-any-return]
    return Payment.objects.visible_to(actor)  # type: ignore[no-any-return]


def record_payment(actor: Actor, invoice: Invoice, *, amount: Decimal, reference: str, key: str) -> Payment:
    """Book money that arrived for an invoice by hand. What is more than owed becomes credit."""
    require(actor, "invoices.finalize")
    _check_amount(amount, invoice.currency)
    if invoice.status not in {InvoiceStatus.FINALIZED, InvoiceStatus.PAID}:
        raise Conflict(_("Only a finalized invoice that is not void can be paid."))
    with transaction.atomic():
        accounts.lock(invoice.tenant)
        payment = _payment(
            invoice.tenant, invoice, amount, invoice.currency, provider="manual", key=key, reference=reference
        )
        _succeed(actor, payment, reference)
    return payment


def pay_invoice(actor: Actor, invoice: Invoice, *, key: str) -> Payment:
    """Charge the card on file for what is left of an invoice. Asked twice with one key, it is charged once."""
    require(actor, "invoices.view", invoice)
    require(actor, "budgets.manage")
    provider = providers.chosen()
    if provider.key == "manual":
        raise Conflict(
            _("This installation takes payments by hand. Pay by bank transfer, naming the invoice.")
        )
    with transaction.atomic():
        account = accounts.lock(invoice.tenant)
        left = receivables.outstanding(invoice)
        known = Payment.objects.filter(tenant=invoice.tenant, key=key).first()
        if known is None and left <= 0:
            raise Conflict(_("Nothing is left to pay of this invoice."))
        pending = Payment.objects.filter(invoice=invoice, status=PaymentStatus.PENDING).exclude(key=key)
        if pending.exists():
            raise Conflict(_("A payment of this invoice is under way. Wait for its result."))
        payment = known or _payment(
            invoice.tenant, invoice, left, invoice.currency, provider=provider.key, key=key
        )
    if payment.status != PaymentStatus.PENDING:
        return payment
    # outside of any transaction: the provider may take its time; its key makes a repeat harmless
    return hear(actor, payment, provider.charge(payment, account))


def buy_credit(actor: Actor, tenant: Tenant, *, amount: Decimal, key: str) -> Payment:
    """Charge the card on file for credit that is used later."""
    require(actor, "budgets.manage")
    provider = providers.chosen()
    if provider.key == "manual":
        raise Conflict(_("This installation takes payments by hand. Ask its staff to add credit."))
    with transaction.atomic():
        account = accounts.lock(tenant)
        _check_amount(amount, account.currency)
        payment = _payment(tenant, None, amount, account.currency, provider=provider.key, key=key)
    if payment.status != PaymentStatus.PENDING:
        return payment
    return hear(actor, payment, provider.charge(payment, account))


def hear(actor: Actor, payment: Payment, answer: Answer) -> Payment:
    """Bring a payment to where its provider says it is. Success is final; the same word again changes nothing."""
    with transaction.atomic():
        accounts.lock(payment.tenant)
        payment = Payment.objects.select_for_update().get(pk=payment.pk)
        if payment.status == PaymentStatus.SUCCEEDED or answer.status == PaymentStatus.PENDING:
            if answer.reference and not payment.reference:
                Payment.objects.filter(pk=payment.pk).update(reference=answer.reference)
        elif answer.status == PaymentStatus.SUCCEEDED:
            _succeed(actor, payment, answer.reference)
        elif payment.status == PaymentStatus.PENDING:
            move(
                payment,
                to=PaymentStatus.FAILED,
                by=actor,
                reason=answer.failure,
                failure=answer.failure,
                reference=answer.reference,
            )
    return payment.reload()


def receive(provider_key: str, *, body: bytes, signature: str) -> str:
    """Act on a provider's message, once; returns what was done, in a few words.

    Messages may come twice or out of order: the event's id is kept in the transaction of its effect.
    """
    told = providers.named(provider_key).read(body, signature)
    with transaction.atomic():
        if ProviderEvent.objects.filter(provider=provider_key, event=told.event).exists():
            return "known already"
        outcome = _act(told)
        # two deliveries at once: the unique constraint lets one of them commit, the other acts on nothing
        ProviderEvent.objects.create(
            provider=provider_key,
            event=told.event,
            kind=told.kind[:80],
            payload_hash=hashlib.sha256(body).hexdigest(),
            outcome=outcome,
        )
    return outcome


def _act(told: Told) -> str:
    if told.about is None or told.answer is None:
        return "nothing of ours"
    payment = Payment.objects.filter(public_id=told.about).first()
    if payment is None:
        return "no such payment"
    if (told.amount, told.currency) != (payment.amount, payment.currency):
        log.error("a provider tells of another amount", extra={"payment": payment.public_id})
        return "another amount"
    return hear(SYSTEM, payment, told.answer).status


def refund(actor: Actor, note: CreditNote, payment: Payment, *, amount: Decimal, key: str) -> Refund:
    """Pay back what a credit note left over, through the payment it came by."""
    require(actor, "invoices.finalize")
    _check_amount(amount, note.currency)
    if payment.tenant_id != note.tenant_id or payment.currency != note.currency:
        raise Conflict(_("This payment is not one of this credit note's tenant."))
    with transaction.atomic():
        accounts.lock(note.tenant)
        if known := Refund.objects.filter(key=key).first():
            return known
        sums = note.refunds.aggregate(sum=Sum("amount"))["sum"] or money.ZERO
        if amount > note.to_refund - sums:
            left = money.text(note.to_refund - sums, note.currency)
            text = _("Only %(left)s %(currency)s of this note are left to pay back.")
            raise Conflict(text % {"left": left, "currency": note.currency})
        reference = providers.named(payment.provider).refund(payment, amount=amount, key=key)
        try:
            with transaction.atomic():
                made = Refund.objects.create(
                    tenant=note.tenant,
                    payment=payment,
                    note=note,
                    key=key,
                    reference=reference,
                    amount=amount,
                    created_at=clock.now(),
                )
        except IntegrityError as error:
            raise Conflict(_("This payment has less left than is paid back.")) from error
        ledger.post(
            note.tenant,
            key=f"refund:{made.public_id}",
            currency=note.currency,
            amounts={AccountKind.PAYABLE: amount, AccountKind.CASH: -amount},
        )
        audit.record(actor, "payment.refunded", payment, amount=str(amount), note=note.number)
    return made


def _payment(
    tenant: Tenant,
    invoice: Invoice | None,
    amount: Decimal,
    currency: str,
    *,
    provider: str,
    key: str,
    reference: str = "",
) -> Payment:
    """The payment of a key, new or known; the same key for something else is refused."""
    if not key:
        raise Invalid.at("/key", "required", _("A payment needs a key of its own."))
    now = clock.now()
    found, _new = Payment.objects.get_or_create(
        tenant=tenant,
        key=key,
        defaults={
            "invoice": invoice,
            "provider": provider,
            "amount": amount,
            "currency": currency,
            "status_at": now,
            "created_at": now,
        },
    )
    if (found.invoice_id, found.provider) != (invoice.pk if invoice else None, provider):
        raise Conflict(_("This key was used for another payment. Use a key of its own for each."))
    if found.amount != amount and found.status == PaymentStatus.SUCCEEDED and provider == "manual":
        raise Conflict(_("This key was used for another payment. Use a key of its own for each."))
    return found


def _succeed(actor: Actor, payment: Payment, reference: str) -> None:
    """Book the money: first what is owed, the rest as credit. With the account locked."""
    if payment.status == PaymentStatus.SUCCEEDED:
        return
    if (
        reference
        and Payment.objects.filter(provider=payment.provider, reference=reference)
        .exclude(pk=payment.pk)
        .exists()
    ):
        raise Conflict(_("A payment with this reference is booked already."))
    owed = receivables.outstanding(payment.invoice) if payment.invoice else money.ZERO
    covered = min(payment.amount, max(owed, money.ZERO))
    rest = payment.amount - covered
    move(payment, to=PaymentStatus.SUCCEEDED, by=actor, reference=reference[:120], to_credit=rest, failure="")
    if rest:
        credits.book(
            payment.tenant,
            amount=rest,
            currency=payment.currency,
            kind=CreditKind.PAID,
            key=f"{receivables.PAID_BY}{payment.public_id}",
            now=clock.now(),
            note=payment.reference,
        )
    ledger.post(
        payment.tenant,
        key=f"payment:{payment.public_id}",
        currency=payment.currency,
        amounts={
            AccountKind.CASH: payment.amount,
            AccountKind.RECEIVABLE: -covered,
            AccountKind.CREDIT: -rest,
        },
        invoice=payment.invoice,
    )
    if payment.invoice is not None:
        receivables.settle(actor, payment.invoice)


def _check_amount(amount: Decimal, currency: str) -> None:
    if not amount.is_finite() or not 0 < amount < Decimal(10) ** 12:
        raise Invalid.at("/amount", "invalid", _("An amount is more than zero."))
    if amount != money.round_line(amount, currency):
        text = _("Too many decimals for %(currency)s.") % {"currency": currency}
        raise Invalid.at("/amount", "too_fine", text)
