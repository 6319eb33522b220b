"""What a payment provider is, and the one every installation has: money that people send and staff book."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from django.conf import settings
from django.utils.translation import gettext as _

from billing.models import BillingAccount, Payment
from billing.states import PaymentStatus
from tenants.errors import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a provider says of a payment: its own reference, how it stands, and why not."""

    reference: str
    status: PaymentStatus
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A verified message of a provider. `about` is our public id of a payment; None: of something else."""

    event: str
    kind: str
    about: str | None = None
    answer: Answer | None = None
    amount: Decimal | None = None
    currency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPage:
    """A page of the provider on which a card is entered, and whose card it will be."""

    customer: str  # the tenant's name at the provider
    url: str


class Provider(Protocol):
    """Takes money and gives it back. Asked twice with one key, it acts once."""

    key: str

    def charge(self, payment: Payment, account: BillingAccount) -> Answer:
        """Ask for the money of a pending payment; its public id is the idempotency key."""

    def refund(self, payment: Payment, *, amount: Decimal, key: str) -> str:
        """Give money back; returns the provider's reference."""

    def card_page(self, account: BillingAccount, *, done: str, back: str) -> CardPage:
        """Make a page where a card is entered; it leads to `done` with the name of its session, or `back`."""

    def keep_card(self, account: BillingAccount, session: str) -> None:
        """Charge the card of a finished session from now on; Conflict where it is not finished or not theirs."""

    def read(self, body: bytes, signature: str) -> Told:
        """Verify and read a message; raises Invalid for one that is not the provider's."""


class Manual:
    """Bank transfers and the like: nothing is asked for by machine; staff book what arrives."""

    key = "manual"

    def charge(self, payment: Payment, account: BillingAccount) -> Answer:
        return Answer(reference=payment.reference, status=PaymentStatus.PENDING)

    def refund(self, payment: Payment, *, amount: Decimal, key: str) -> str:
        return ""

    def card_page(self, account: BillingAccount, *, done: str, back: str) -> CardPage:
        raise Conflict(_("This installation takes payments by hand. Ask its staff where to send them."))

    def keep_card(self, account: BillingAccount, session: str) -> None:
        raise Conflict(_("This installation takes payments by hand. Ask its staff where to send them."))

    def read(self, body: bytes, signature: str) -> Told:
        raise Conflict("This installation takes payments by hand; no provider sends messages.")


def named(key: str) -> Provider:
    """The provider of this name."""
    if key == "stripe":
        from billing.services.stripe_provider import Stripe  # noqa: PLC0415 - the SDK is an extra

        return Stripe(
            api_key=settings.STRIPE_KEY,
            webhook_secret=settings.STRIPE_WEBHOOK_SECRET,
            base=settings.STRIPE_API,
        )
    return Manual()


def chosen() -> Provider:
    """The provider of this installation: Stripe where a key is set, else by hand."""
    return named("stripe" if settings.STRIPE_KEY else "manual")
