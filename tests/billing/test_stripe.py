"""Stripe by the official SDK against a server that speaks its API, with real signatures and real messages."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import queue
import threading
import time
import urllib.request
from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.conf import settings as django_settings

from billing.models import AccountKind, CreditGrant, Payment, ProviderEvent
from billing.months import Month
from billing.services import accounts, ledger, notes, payments, reconcile
from billing.services.stripe_provider import major, minor
from billing.states import PaymentStatus
from tenants.errors import Conflict, Invalid, Unavailable
from tests.billing import localstripe

stripe = pytest.importorskip("stripe")
MARCH = Month(2026, 3)
SECRET = "whsec_test"
GOOD, DECLINED = "4242424242424242", "4000000000000341"


@pytest.fixture(scope="session")
def stripe_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python = localstripe.environment(django_settings.BASE_DIR / "var" / "localstripe")
    with localstripe.running(python, tmp_path_factory.mktemp("localstripe")) as url:
        yield url


@pytest.fixture
def api(stripe_url, settings):
    settings.STRIPE_KEY, settings.STRIPE_WEBHOOK_SECRET = "sk_test_12345", SECRET
    settings.STRIPE_API = stripe_url
    return stripe.StripeClient("sk_test_12345", base_addresses={"api": stripe_url})


def card(api, tenant, as_staff, number):
    """A customer of this card, as the account's."""
    customer = api.v1.customers.create({"email": "ana@example.org"})
    given = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
    method = api.v1.payment_methods.create({"type": "card", "card": given})
    api.v1.payment_methods.attach(method.id, {"customer": customer.id})
    default = {"invoice_settings": {"default_payment_method": method.id}}
    api.v1.customers.update(customer.id, default)
    accounts.change_account(as_staff, tenant, customer=customer.id)


def message(payment, kind="payment_intent.succeeded", *, event="evt_1", amount=1000, at=None, secret=SECRET):
    """A body and its signature, as Stripe signs."""
    found = {
        "id": payment.reference or "pi_1", "amount": amount, "currency": "usd",
        "metadata": {"payment": payment.public_id},
    }  # fmt: skip
    body = json.dumps({"id": event, "type": kind, "data": {"object": found}}).encode()
    at = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), b"%d.%s" % (at, body), hashlib.sha256).hexdigest()
    return {"body": body, "signature": f"t={at},v1={digest}"}


def pending(tenant, invoice, amount=10):
    return Payment.objects.create(
        tenant=tenant, invoice=invoice, provider="stripe", key="k", currency="USD", amount=amount
    )


def test_a_card_on_file_pays_an_invoice_once_for_one_key(api, invoice, tenant, as_staff, as_ana):
    card(api, tenant, as_staff, GOOD)
    first = payments.pay_invoice(as_ana, invoice, key="k")
    assert (first.status, first.amount) == (PaymentStatus.SUCCEEDED, 10)
    assert payments.pay_invoice(as_ana, invoice, key="k") == first
    assert api.v1.payment_intents.retrieve(first.reference).amount == 1000
    assert invoice.reload().status == "paid"
    with pytest.raises(Conflict, match="Nothing is left"):
        payments.pay_invoice(as_ana, invoice, key="k2")
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 10
    assert reconcile.check(tenant) == []


def test_a_declined_card_books_nothing_and_another_try_may_succeed(api, invoice, tenant, as_staff, as_ana):
    card(api, tenant, as_staff, DECLINED)
    failed = payments.pay_invoice(as_ana, invoice, key="1")
    assert (failed.status, failed.failure) == (PaymentStatus.FAILED, "Your card was declined.")
    card(api, tenant, as_staff, GOOD)
    assert payments.pay_invoice(as_ana, invoice, key="2").status == PaymentStatus.SUCCEEDED
    assert reconcile.check(tenant) == []


def test_credit_is_bought_with_the_card_and_a_note_is_refunded_to_it(api, invoice, tenant, as_staff, as_ana):
    card(api, tenant, as_staff, GOOD)
    payments.buy_credit(as_ana, tenant, amount=Decimal(25), key="c")
    assert CreditGrant.objects.get().remaining == 25
    paid = payments.pay_invoice(as_ana, invoice, key="p")
    note = notes.issue_note(
        as_staff, invoice, amounts={1: Decimal(4)}, reason="outage", rest="refund", key="n"
    )
    made = payments.refund(as_staff, note, paid, amount=Decimal(4), key="r")
    assert api.v1.refunds.retrieve(made.reference).amount == 400
    assert reconcile.check(tenant) == []


def test_without_a_card_or_a_provider_that_answers_nothing_is_booked(
    api, stripe_url, invoice, tenant, as_staff, as_ana, settings
):
    with pytest.raises(Conflict, match="no card on file"):
        payments.pay_invoice(as_ana, invoice, key="1")
    card(api, tenant, as_staff, GOOD)
    settings.STRIPE_API = "http://127.0.0.1:9"
    with pytest.raises(Unavailable):
        payments.pay_invoice(as_ana, invoice, key="1")
    settings.STRIPE_API = stripe_url
    assert payments.pay_invoice(as_ana, invoice, key="1").status == PaymentStatus.SUCCEEDED
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 10


def test_messages_twice_and_out_of_order_change_nothing_more(api, invoice, tenant):
    payment = pending(tenant, invoice)
    failed = message(payment, "payment_intent.payment_failed", event="evt_0")
    succeeded = message(payment, event="evt_1")
    assert payments.receive("stripe", **succeeded) == "succeeded"
    assert payments.receive("stripe", **succeeded) == "known already"
    assert payments.receive("stripe", **message(payment, event="evt_2")) == "succeeded"
    assert payments.receive("stripe", **failed) == "succeeded"  # it came late; the money is booked
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 10
    assert ProviderEvent.objects.count() == 3
    assert reconcile.check(tenant) == []


def test_a_failure_that_turns_into_success_is_booked(api, invoice, tenant):
    payment = pending(tenant, invoice)
    failed = message(payment, "payment_intent.payment_failed", event="evt_0")
    assert payments.receive("stripe", **failed) == "failed"
    assert payments.receive("stripe", **message(payment, event="evt_1")) == "succeeded"
    assert invoice.reload().status == "paid"


@pytest.mark.parametrize(
    "forged",
    [
        {"secret": "whsec_other"},
        {"at": 1},  # signed long ago: a replay
    ],
)
def test_a_message_that_is_not_signed_now_by_stripe_is_refused(api, invoice, tenant, forged):
    payment = pending(tenant, invoice)
    with pytest.raises(Invalid, match="not signed"):
        payments.receive("stripe", **message(payment, **forged))
    good = message(payment)
    with pytest.raises(Invalid, match="not signed"):
        payments.receive("stripe", body=good["body"] + b" ", signature=good["signature"])
    assert not ProviderEvent.objects.exists() and payment.reload().status == "pending"


def test_another_amount_or_an_unknown_payment_is_kept_and_not_booked(api, invoice, tenant):
    payment = pending(tenant, invoice)
    assert payments.receive("stripe", **message(payment, amount=999)) == "another amount"
    stranger = Payment(tenant=tenant, provider="stripe", key="x", currency="USD", amount=10)
    assert payments.receive("stripe", **message(stranger, event="evt_9")) == "no such payment"
    assert (
        payments.receive("stripe", **message(payment, "customer.created", event="evt_8")) == "nothing of ours"
    )
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 0


def test_the_server_own_message_is_verified_and_understood(
    api, stripe_url, invoice, tenant, as_staff, as_ana
):
    """A message as the server sends it, through HTTP, with the signature it made."""
    heard: queue.Queue[tuple[bytes, str]] = queue.Queue()

    class Ear(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.put((body, self.headers["Stripe-Signature"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    ear = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ear)
    threading.Thread(target=ear.serve_forever, daemon=True).start()
    try:
        config = {"url": f"http://127.0.0.1:{ear.server_port}/", "secret": SECRET}
        asked = urllib.request.Request(
            f"{stripe_url}/_config/webhooks/ours", data=json.dumps(config).encode(), method="POST"
        )
        urllib.request.urlopen(asked, timeout=10).close()
        card(api, tenant, as_staff, GOOD)
        payment = payments.pay_invoice(as_ana, invoice, key="k")
        outcomes = {}
        deadline = time.monotonic() + 30
        while "payment_intent.succeeded" not in outcomes and time.monotonic() < deadline:
            body, signature = heard.get(timeout=30)
            told = json.loads(body)
            metadata = told["data"]["object"].get("metadata") or {}
            if metadata.get("payment", payment.public_id) != payment.public_id:
                continue  # what an earlier test did is still being told
            outcomes[told["type"]] = payments.receive("stripe", body=body, signature=signature)
    finally:
        ear.shutdown()
        ear.server_close()
    assert outcomes["payment_intent.succeeded"] == "succeeded"
    assert Payment.objects.get().pk == payment.pk
    assert ledger.balance(tenant, AccountKind.CASH, "USD") == 10


@pytest.mark.parametrize(
    ("amount", "currency", "counted"),
    [("10.00", "USD", 1000), ("1235", "JPY", 1235), ("1.230", "KWD", 1230), ("5", "UGX", 500)],
)
def test_amounts_are_counted_as_stripe_counts_them(amount, currency, counted):
    assert minor(Decimal(amount), currency) == counted
    assert major(counted, currency) == Decimal(amount)


def test_an_amount_that_stripe_cannot_take_is_refused_with_the_reason():
    with pytest.raises(Conflict, match="last digit"):
        minor(Decimal("1.235"), "KWD")
