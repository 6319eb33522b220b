"""A tenant's statement: every movement of what it owes and of its credit, with the sums after each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.utils.translation import gettext as _

from billing import money
from billing.models import AccountKind, CreditGrant, CreditNote, Invoice, LedgerEntry, Payment, Refund
from billing.services import accounts
from tenants.models import Tenant


@dataclass(slots=True, kw_only=True)
class Row:
    """One booking as a person reads it."""

    key: str
    at: datetime
    text: str
    url: str
    owed: Decimal  # what it changed of what is owed
    credit: Decimal  # what it changed of the credit
    owed_after: Decimal = money.ZERO
    credit_after: Decimal = money.ZERO


def statement(tenant: Tenant) -> list[Row]:
    """Every booking on what is owed and on credit, the newest first; read from the ledger itself."""
    currency = accounts.currency_of(tenant)
    entries = (
        LedgerEntry.objects.filter(
            account__tenant=tenant,
            account__currency=currency,
            account__kind__in=[AccountKind.RECEIVABLE, AccountKind.CREDIT],
        )
        .select_related("transaction", "account")
        .order_by("transaction_id", "id")
    )
    rows: dict[int, Row] = {}
    names = _Names(tenant)
    for entry in entries:
        booked = entry.transaction
        row = rows.get(booked.pk)
        if row is None:
            text, url = names.of(booked.key)
            row = rows[booked.pk] = Row(
                key=booked.key, at=booked.at, text=text, url=url, owed=money.ZERO, credit=money.ZERO
            )
        if entry.account.kind == AccountKind.RECEIVABLE:
            row.owed = money.EXACT.add(row.owed, entry.amount)
        else:
            row.credit = money.EXACT.subtract(row.credit, entry.amount)
    owed = credit = money.ZERO
    for row in rows.values():
        owed, credit = money.EXACT.add(owed, row.owed), money.EXACT.add(credit, row.credit)
        row.owed_after, row.credit_after = owed, credit
    return list(rows.values())[::-1]


class _Names:
    """What stands behind the keys of a tenant's bookings."""

    def __init__(self, tenant: Tenant) -> None:
        self._invoices = {one.public_id: one for one in Invoice.objects.filter(tenant=tenant)}
        self._notes = {one.public_id: one for one in CreditNote.objects.filter(tenant=tenant)}
        self._payments = dict(Payment.objects.filter(tenant=tenant).values_list("public_id", "reference"))
        self._refunds = dict(Refund.objects.filter(tenant=tenant).values_list("public_id", "reference"))
        self._grants = dict(CreditGrant.objects.filter(tenant=tenant).values_list("public_id", "note"))

    def of(self, key: str) -> tuple[str, str]:
        """Words and a page for a booking."""
        kind, _colon, rest = key.partition(":")
        name = rest.split(":")[0]
        if kind in {"invoice", "void"} and name in self._invoices:
            invoice = self._invoices[name]
            text = _("Invoice %(number)s") if kind == "invoice" else _("%(number)s taken back")
            return text % {"number": invoice.number}, invoice.get_absolute_url()
        if kind == "note" and name in self._notes:
            note = self._notes[name]
            return _("Credit note %(number)s") % {"number": note.number}, note.get_absolute_url()
        words = {
            "payment": (_("Payment"), self._payments),
            "refund": (_("Paid back"), self._refunds),
            "credit": (_("Credit added"), self._grants),
            "breakage": (_("Credit expired"), self._grants),
        }
        text, details = words.get(kind, (key, {}))
        detail = details.get(name, "")
        return (f"{text}: {detail}" if detail else text), ""
