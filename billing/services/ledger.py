"""Postings: groups of entries that sum to zero. The database checks the sum and refuses changes."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from django.db import transaction
from django.db.models import Sum

from billing.models import AccountKind, Invoice, LedgerAccount, LedgerEntry, LedgerTransaction
from tenants.models import Tenant


def post(
    tenant: Tenant,
    *,
    key: str,
    currency: str,
    amounts: Mapping[AccountKind, Decimal],
    invoice: Invoice | None = None,
) -> LedgerTransaction:
    """Book signed amounts (debit positive) in one transaction. The same key again returns what was booked."""
    with transaction.atomic():
        booked, new = LedgerTransaction.objects.get_or_create(
            key=key, defaults={"tenant": tenant, "invoice": invoice}
        )
        if new:
            for kind, amount in sorted(amounts.items()):
                if not amount:
                    continue
                account, _made = LedgerAccount.objects.get_or_create(
                    tenant=tenant, kind=kind, currency=currency
                )
                LedgerEntry.objects.create(transaction=booked, account=account, amount=amount)
    return booked


def reverse(of_key: str, *, key: str) -> LedgerTransaction:
    """Book the opposite of what was booked under a key. Again returns what was booked."""
    with transaction.atomic():
        original = LedgerTransaction.objects.get(key=of_key)
        booked, new = LedgerTransaction.objects.get_or_create(
            key=key, defaults={"tenant_id": original.tenant_id, "invoice_id": original.invoice_id}
        )
        if new:
            for entry in original.entries.order_by("account_id"):
                LedgerEntry.objects.create(
                    transaction=booked, account_id=entry.account_id, amount=-entry.amount
                )
    return booked


def balance(tenant: Tenant, kind: AccountKind, currency: str) -> Decimal:
    """The sum of an account's entries."""
    entries = LedgerEntry.objects.filter(
        account__tenant=tenant, account__kind=kind, account__currency=currency
    )
    return entries.aggregate(sum=Sum("amount"))["sum"] or Decimal(0)
