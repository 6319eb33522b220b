"""Stripe through its official SDK: cards on file are charged, refunds are made, webhooks are verified."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import stripe
from django.utils.translation import gettext as _

from billing import money
from billing.models import BillingAccount, Payment
from billing.services.providers import Answer, CardPage, Told
from billing.states import PaymentStatus
from tenants.errors import Conflict, Invalid, Unavailable

# Stripe counts these in hundredths although ISO 4217 gives them no places
_HUNDREDTHS = {"ISK", "UGX"}
_SAYS = {
    "succeeded": PaymentStatus.SUCCEEDED,
    "canceled": PaymentStatus.FAILED,
    "requires_payment_method": PaymentStatus.FAILED,
    "requires_action": PaymentStatus.FAILED,  # nobody is there to answer a question
}
_EVENTS = {
    "payment_intent.succeeded": PaymentStatus.SUCCEEDED,
    "payment_intent.payment_failed": PaymentStatus.FAILED,
    "payment_intent.canceled": PaymentStatus.FAILED,
}


class Stripe:
    """One account at Stripe."""

    key = "stripe"

    def __init__(self, *, api_key: str, webhook_secret: str, base: str = "") -> None:
        self._client = stripe.StripeClient(
            api_key, base_addresses={"api": base} if base else {}, max_network_retries=2
        )
        self._secret = webhook_secret

    def charge(self, payment: Payment, account: BillingAccount) -> Answer:
        if not account.customer:
            text = _("This tenant has no card on file. Add its Stripe customer on the account page.")
            raise Conflict(text)
        try:
            customer = self._client.v1.customers.retrieve(account.customer)
            method = _default_method(customer)
            intent = self._client.v1.payment_intents.create(
                {
                    "amount": minor(payment.amount, payment.currency),
                    "currency": payment.currency.lower(),
                    "customer": account.customer,
                    "payment_method": method,
                    "confirm": True,
                    "off_session": True,
                    "metadata": {"payment": payment.public_id},
                },
                {"idempotency_key": payment.public_id},
            )
        except stripe.CardError as error:
            said = str(error.user_message or error)
            reference = getattr(getattr(error.error, "payment_intent", None), "id", "") or ""
            return Answer(reference=reference, status=PaymentStatus.FAILED, failure=said[:200])
        except stripe.StripeError as error:
            raise _away(error) from error
        return Answer(
            reference=intent.id,
            status=_SAYS.get(intent.status, PaymentStatus.PENDING),
            failure="" if intent.status == "succeeded" else str(intent.status),
        )

    def refund(self, payment: Payment, *, amount: Decimal, key: str) -> str:
        try:
            made = self._client.v1.refunds.create(
                {"payment_intent": payment.reference, "amount": minor(amount, payment.currency)},
                {"idempotency_key": key},
            )
        except stripe.StripeError as error:
            raise _away(error) from error
        return str(made.id)

    def card_page(self, account: BillingAccount, *, done: str, back: str) -> CardPage:
        try:
            customer = account.customer or self._customer(account)
            asked: stripe.params.checkout.SessionCreateParams = {
                "mode": "setup",
                "customer": customer,
                "currency": account.currency.lower(),
                "success_url": f"{done}?session={{CHECKOUT_SESSION_ID}}",
                "cancel_url": back,
            }
            session = self._client.v1.checkout.sessions.create(asked)
        except stripe.StripeError as error:
            raise _away(error) from error
        return CardPage(customer=customer, url=str(session.url))

    def keep_card(self, account: BillingAccount, session: str) -> None:
        try:
            found = self._client.v1.checkout.sessions.retrieve(session, {"expand": ["setup_intent"]})
            method = getattr(found.setup_intent, "payment_method", None)
            if found.mode != "setup" or found.customer != account.customer or not account.customer:
                raise Conflict(_("This card was entered for somebody else."))
            if found.status != "complete" or not method:
                raise Conflict(_("No card was entered yet. Begin again."))
            self._client.v1.customers.update(
                account.customer, {"invoice_settings": {"default_payment_method": str(method)}}
            )
        except stripe.InvalidRequestError as error:
            raise Conflict(_("No card was entered yet. Begin again.")) from error
        except stripe.StripeError as error:
            raise _away(error) from error

    def _customer(self, account: BillingAccount) -> str:
        made = self._client.v1.customers.create(
            {"name": account.tenant.name, "metadata": {"tenant": account.tenant.public_id}},
            {"idempotency_key": f"customer:{account.public_id}"},
        )
        return str(made.id)

    def read(self, body: bytes, signature: str) -> Told:
        try:
            stripe.WebhookSignature.verify_header(body.decode(), signature, self._secret, tolerance=300)
            event: dict[str, Any] = json.loads(body)
            found = event["data"]["object"]
            about = (found.get("metadata") or {}).get("payment")
            status = _EVENTS.get(event["type"])
            if about is None or status is None:
                return Told(event=event["id"], kind=event["type"])
            error = found.get("last_payment_error") or {}
            currency = str(found["currency"]).upper()
            return Told(
                event=event["id"],
                kind=event["type"],
                about=about,
                answer=Answer(
                    reference=found["id"], status=status, failure=str(error.get("message") or "")[:200]
                ),
                amount=major(int(found["amount"]), currency),
                currency=currency,
            )
        except (ValueError, KeyError, TypeError, AttributeError, stripe.SignatureVerificationError) as error:
            raise Invalid(_("This message is not signed by the payment provider.")) from error


def minor(amount: Decimal, currency: str) -> int:
    """An amount as Stripe counts it: whole cents, yen, or tenths of a fils ending in zero."""
    whole = amount.scaleb(2 if currency in _HUNDREDTHS else money.places(currency))
    if whole != whole.to_integral_value() or (money.places(currency) == 3 and whole % 10):
        text = _("%(amount)s %(currency)s cannot be paid by card: its last digit is not zero.")
        raise Conflict(text % {"amount": money.plain(amount), "currency": currency})
    return int(whole)


def major(amount: int, currency: str) -> Decimal:
    """The amount behind what Stripe counts."""
    return Decimal(amount).scaleb(-(2 if currency in _HUNDREDTHS else money.places(currency)))


def _default_method(customer: Any) -> str:
    settings = getattr(customer, "invoice_settings", None)
    method = getattr(settings, "default_payment_method", None) or getattr(customer, "default_source", None)
    if not method:
        raise Conflict(_("This tenant's Stripe customer has no default card."))
    return method if isinstance(method, str) else str(method.id)


def _away(error: stripe.StripeError) -> Unavailable:
    text = _("The payment provider did not do this: %(why)s")
    return Unavailable(text % {"why": error.user_message or type(error).__name__})
