"""Pages of credit, payments, notes and accounts: who sees them, and what they do."""

from __future__ import annotations

import hashlib
import io
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pypdf import PdfReader

from billing import pdf
from billing.models import CreditGrant, CreditNote, Payment, TaxRate
from billing.months import Month
from billing.services import accounts, credits, documents, invoices, metering, reconcile
from tests.factories import make_user

MARCH = Month(2026, 3)


@pytest.fixture
def invoice(tenant, clock, as_staff, hold):
    """10.00 and 20 % tax; 4.00 of it paid from credit."""
    TaxRate.objects.create(region="AT", title="VAT", percent=20, valid_from=datetime(2020, 1, 1, tzinfo=UTC))
    accounts.change_account(
        as_staff, tenant, tax_region="AT", buyer_details="Lab GmbH\nVienna\nATU 1", commitment=Decimal(0)
    )
    credits.grant_credit(as_staff, tenant, amount=Decimal(4), kind="promo", key="g", note="Welcome")
    held = hold(units=4, subject_title="手写数字")
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    clock.to("2026-04-01 00:00:00")
    return invoices.finalize(as_staff, tenant, MARCH)


def words(data):
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)


def test_an_invoice_page_shows_tax_credit_and_what_is_left(invoice, browser_of, ana):
    page = browser_of(ana).get(f"/invoices/{invoice.public_id}").content.decode()
    for text in (
        "VAT 20 %",
        "$12.00",
        "Paid from credit",
        "$8.00",
        "Lab GmbH",
        "Pay by",
        "While it is unpaid",
    ):
        assert text in page, text
    assert "Book a payment" not in page and "Void this invoice" not in page


def test_staff_book_a_payment_a_note_and_a_void_from_the_page(invoice, tenant, browser_of, staff):
    browser = browser_of(staff)
    address = f"/invoices/{invoice.public_id}"
    assert "Book a payment" in browser.get(address).content.decode()
    sent = {"amount": "5", "reference": "bank 7"}
    assert browser.post(f"{address}/payment", sent).status_code == 302
    assert browser.post(f"{address}/payment", sent).status_code == 302  # pressed twice
    assert Payment.objects.get().amount == 5
    note = {"line-1": "2.50", "reason": "outage", "rest": "credit", "key": "once"}
    assert browser.post(f"{address}/note", note).status_code == 302
    made = browser.post(f"{address}/note", note)
    assert CreditNote.objects.get().total == 3
    assert "outage" in browser.get(made.url).content.decode()
    assert "CN-000001" in words(browser.get(f"{made.url}/pdf").content)
    refused = browser.post(f"{address}/void", {"reason": "x"}, follow=True).content.decode()
    assert "Make a credit note instead" in refused
    assert reconcile.check(tenant) == []


def test_only_staff_act_on_an_invoice(invoice, browser_of, ana):
    browser = browser_of(ana)
    for what, data in (
        ("payment", {"amount": "5", "reference": "x"}),
        ("note", {"line-1": "1", "reason": "x", "rest": "credit", "key": "k"}),
        ("void", {"reason": "x"}),
    ):
        assert browser.post(f"/invoices/{invoice.public_id}/{what}", data).status_code == 403
    assert not Payment.objects.exists() and not CreditNote.objects.exists()
    page = browser.post(f"/invoices/{invoice.public_id}/pay", follow=True).content.decode()
    assert "by hand" in page


def test_the_credit_page_and_statement_are_for_those_who_read_invoices(
    invoice, tenant, browser_of, ana, ben, cy
):
    page = browser_of(ana).get("/invoices/credit").content.decode()
    for text in ("$8.00", "Welcome", "INV-000001", "Credit added"):
        assert text in page, text
    sheet = b"".join(browser_of(ana).get("/invoices/statement.csv").streaming_content).decode()
    assert "Invoice INV-000001,8,-4,8,0,USD" in sheet
    assert browser_of(ben).get("/invoices/credit").status_code == 403
    assert "INV-000001" not in browser_of(cy).get("/invoices/credit").content.decode()
    dee = make_user("dee@example.org", tenant=tenant, role="billing")
    assert browser_of(dee).get("/invoices/credit").status_code == 200


def test_staff_look_after_accounts(tenant, clock, as_staff, browser_of, staff, ana):
    browser = browser_of(staff)
    account = accounts.of(tenant)
    address = f"/reports/accounts/{tenant.public_id}"
    assert tenant.name in browser.get("/reports/accounts").content.decode()
    assert browser_of(ana).get("/reports/accounts").status_code == 403
    assert browser_of(ana).get(address).status_code == 404
    grant = {"amount": "25", "kind": "paid", "note": "transfer 9", "key": "once"}
    for _ in range(2):
        assert browser.post(f"{address}/credit", grant).status_code == 302
    assert CreditGrant.objects.get().amount == 25
    assert browser.post(f"{address}/credit", {**grant, "amount": "-1", "key": "b"}).status_code == 422
    fields = {
        "currency": "EUR", "plan": "partner", "mode": "prepaid", "zone": "Europe/Vienna", "anchor_day": 1,
        "grace_minutes": 90, "terms_days": 30, "commitment": "0", "tax_region": "", "language": "zh-hans",
        "buyer_details": "", "customer": "",
    }  # fmt: skip
    assert browser.post(f"{address}/change", fields).status_code == 302
    assert account.reload().zone == "Europe/Vienna"
    wrong = browser.post(f"{address}/change", {**fields, "zone": "Mars/Base"})
    assert wrong.status_code == 422 and "not a time zone" in wrong.content.decode()
    accounts.park(tenant, "a sum is off")
    assert "a sum is off" in browser.get(address).content.decode()
    assert browser.post(f"{address}/unpark", {"reason": ""}).status_code == 302
    assert account.reload().is_parked
    browser.post(f"{address}/unpark", {"reason": "edited by hand"})
    assert not account.reload().is_parked


def test_a_pdf_sums_to_its_table_in_english_and_chinese_and_never_changes(invoice, browser_of, ana):
    browser = browser_of(ana)
    english = browser.get(f"/invoices/{invoice.public_id}/pdf?language=en").content
    chinese = browser.get(f"/invoices/{invoice.public_id}/pdf?language=zh-hans").content
    assert english == browser.get(f"/invoices/{invoice.public_id}/pdf").content
    assert hashlib.sha256(english).digest() == hashlib.sha256(pdf.render(documents.stored(invoice))).digest()
    text = words(english)
    for part in ("Invoice INV-000001", "ATU 1", "VAT 20 % (10.00)", invoice.content_hash[:20], "Pay by"):
        assert part in text, part
    amounts = [Decimal(found) for found in re.findall(r"(-?[0-9]+\.[0-9]{2}) USD", text)]
    net, tax, total, credit, due = amounts
    assert (net + tax, total + credit) == (total, due) == (12, 8)
    said = words(chinese)
    assert "账单 INV-000001" in said and "12.00" in said and "手写数字" in said


def test_a_forged_message_of_the_provider_is_refused_without_a_session(client, db, settings):
    settings.STRIPE_KEY, settings.STRIPE_WEBHOOK_SECRET = "sk_test_1", "whsec_1"
    pytest.importorskip("stripe")
    answer = client.post("/payments/stripe", b"{}", content_type="application/json")
    assert answer.status_code == 400
