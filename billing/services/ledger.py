"""Postings: groups of entries that sum to zero. The database checks the sum and refuses changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
            moved = {kind: amount for kind, amount in sorted(amounts.items()) if amount}
            accounts = _accounts(tenant, currency, moved)
            LedgerEntry.objects.bulk_create(
                LedgerEntry(transaction=booked, account_id=accounts[kind], amount=amount)
                for kind, amount in moved.items()
            )
    return booked


def _accounts(tenant: Tenant, currency: str, kinds: Iterable[AccountKind]) -> dict[str, int]:
    """The ids of a tenant's accounts of these kinds; made the first time."""
    mine = LedgerAccount.objects.filter(tenant=tenant, currency=currency)
    known = dict(mine.values_list("kind", "id"))
    missing = [kind for kind in kinds if kind not in known]
    if not missing:
        return known
    # somebody else may make the same at this moment: theirs is ours
    LedgerAccount.objects.bulk_create(
        [LedgerAccount(tenant=tenant, kind=kind, currency=currency) for kind in missing],
        ignore_conflicts=True,
    )
    return dict(mine.values_list("kind", "id"))


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


def balances(tenant: Tenant) -> dict[tuple[str, str], Decimal]:
    """{(kind, currency): the sum of that account's entries} of every account that has some."""
    entries = LedgerEntry.objects.filter(account__tenant=tenant).order_by()
    sums = entries.values_list("account__kind", "account__currency").annotate(sum=Sum("amount"))
    return {(kind, currency): amount for kind, currency, amount in sums}


def balance(tenant: Tenant, kind: AccountKind, currency: str) -> Decimal:
    """The sum of an account's entries."""
    entries = LedgerEntry.objects.filter(
        account__tenant=tenant, account__kind=kind, account__currency=currency
    )
    return entries.aggregate(sum=Sum("amount"))["sum"] or Decimal(0)
