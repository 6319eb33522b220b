"""A card is entered at Stripe and kept for whoever entered it; here only its customer is known."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from billing.services import accounts
from tenants.models import AuditEntry

stripe = pytest.importorskip("stripe")


class FakeCheckout:
    """Speaks the four requests of Checkout in setup mode; localstripe knows none of its sessions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.customer, self.status, self.mode = "cus_1", "complete", "setup"

    def answer(self, method: str, path: str, said: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.asked.append((method, path, said))
        if (method, path) == ("POST", "/v1/customers"):
            return 200, {"id": "cus_1", "object": "customer"}
        if (method, path) == ("POST", "/v1/checkout/sessions"):
            return 200, {
                "id": "cs_1",
                "object": "checkout.session",
                "url": "https://checkout.stripe.test/cs_1",
            }
        if (method, path) == ("GET", "/v1/checkout/sessions/cs_1"):
            intent = {"id": "seti_1", "object": "setup_intent", "payment_method": "pm_1"}
            return 200, {
                "id": "cs_1", "object": "checkout.session", "mode": self.mode, "status": self.status,
                "customer": self.customer, "setup_intent": intent if self.status == "complete" else None,
            }  # fmt: skip
        if (method, path) == ("POST", "/v1/customers/cus_1"):
            return 200, {"id": "cus_1", "object": "customer"}
        return 404, {"error": {"type": "invalid_request_error", "message": "No such thing"}}

    def told(self, method: str, path: str) -> list[dict[str, str]]:
        return [said for how, where, said in self.asked if (how, where) == (method, path)]


@pytest.fixture
def checkout(settings: Any) -> Iterator[FakeCheckout]:
    fake = FakeCheckout()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            said = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
            code, body = fake.answer(self.command, self.path.split("?")[0], said)
            text = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _do

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.STRIPE_KEY, settings.STRIPE_API = "sk_test_1", f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    server.shutdown()
    server.server_close()


def test_a_card_is_entered_at_stripe_and_charged_from_then_on(checkout, tenant, browser_of, ana):
    client = browser_of(ana)
    assert "Enter or change the card" in client.get("/invoices/credit").content.decode()
    page = client.post("/invoices/card").content.decode()
    assert 'href="https://checkout.stripe.test/cs_1"' in page
    (session,) = checkout.told("POST", "/v1/checkout/sessions")
    assert (session["mode"], session["customer"], session["currency"]) == ("setup", "cus_1", "usd")
    assert session["success_url"].endswith("/invoices/card/done?session={CHECKOUT_SESSION_ID}")
    assert accounts.of(tenant).customer == "cus_1"
    done = client.get("/invoices/card/done", {"session": "cs_1"}, follow=True).content.decode()
    assert "This card pays from now on" in done
    (kept,) = checkout.told("POST", "/v1/customers/cus_1")
    assert kept == {"invoice_settings[default_payment_method]": "pm_1"}
    assert AuditEntry.objects.filter(tenant=tenant, action="card.kept").count() == 1
    client.post("/invoices/card")
    assert len(checkout.told("POST", "/v1/customers")) == 1  # the customer is made once


@pytest.mark.parametrize(
    ("change", "session", "words"),
    [
        ({"status": "open"}, "cs_1", "No card was entered"),
        ({"customer": "cus_other"}, "cs_1", "somebody else"),
        ({"mode": "payment"}, "cs_1", "somebody else"),
        ({}, "cs_2", "No card was entered"),
        ({}, "../customers/cus_1", "No card was entered"),
        ({}, "", "No card was entered"),
    ],
)
def test_a_session_that_is_not_finished_or_not_theirs_changes_nothing(
    checkout, tenant, browser_of, ana, change, session, words
):
    browser_of(ana).post("/invoices/card")
    for name, value in change.items():
        setattr(checkout, name, value)
    page = browser_of(ana).get("/invoices/card/done", {"session": session}, follow=True).content.decode()
    assert words in page
    assert checkout.told("POST", "/v1/customers/cus_1") == []


def test_a_session_of_another_tenant_is_refused_before_this_one_has_a_customer(
    checkout, tenant, browser_of, ana
):
    page = browser_of(ana).get("/invoices/card/done", {"session": "cs_1"}, follow=True).content.decode()
    assert "somebody else" in page and checkout.told("POST", "/v1/customers/cus_1") == []


def test_only_those_who_manage_money_enter_a_card(checkout, tenant, browser_of, ben):
    assert browser_of(ben).post("/invoices/card").status_code == 403
    assert browser_of(ben).get("/invoices/card/done", {"session": "cs_1"}).status_code == 403
    assert checkout.asked == []


def test_without_a_provider_nobody_is_offered_a_card(tenant, browser_of, ana, settings):
    settings.STRIPE_KEY = ""
    client = browser_of(ana)
    assert "Enter or change the card" not in client.get("/invoices/credit").content.decode()
    assert "by hand" in client.post("/invoices/card", follow=True).content.decode()
    assert "by hand" in client.get("/invoices/card/done", {"session": "cs_1"}, follow=True).content.decode()


def test_a_provider_that_is_away_is_said_so(tenant, browser_of, ana, settings):
    settings.STRIPE_KEY, settings.STRIPE_API = "sk_test_1", "http://127.0.0.1:9"
    page = browser_of(ana).post("/invoices/card", follow=True).content.decode()
    assert "The payment provider did not do this" in page
