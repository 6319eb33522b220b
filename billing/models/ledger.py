"""Double entry: every transaction sums to zero and nothing is ever changed. The database sees to both."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from billing.models.fields import AmountField
from billing.models.invoices import Invoice
from tenants.models import Tenant


class AccountKind(models.TextChoices):
    RECEIVABLE = "receivable", "receivable"  # what the tenant owes
    REVENUE = "revenue", "revenue"  # what was earned
    CREDIT = "credit", "customer credit"  # what the tenant has paid ahead or was given, not used yet
    CASH = "cash", "cash"  # money that came in or went out
    PAYABLE = "payable", "refunds payable"  # what notes give back and was not paid out yet
    TAX = "tax", "tax payable"  # what is owed to the tax office
    PROMO = "promo", "promotion expense"  # credit that was given
    BREAKAGE = "breakage", "breakage"  # credit that expired unused


class LedgerAccount(models.Model):
    """One account of one tenant in one currency."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=20, choices=AccountKind)
    currency = models.CharField(max_length=3)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "kind", "currency"], name="one_account_of_a_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.currency}"


class LedgerTransaction(models.Model):
    """A group of entries that belong together; its key makes a replay harmless."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    key = models.CharField(max_length=80, unique=True)
    invoice = models.ForeignKey(Invoice, null=True, on_delete=models.PROTECT, related_name="ledger")
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.key


class LedgerEntry(models.Model):
    """One signed amount on one account: debit is positive, credit negative."""

    transaction = models.ForeignKey(LedgerTransaction, on_delete=models.PROTECT, related_name="entries")
    account = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="entries")
    amount = AmountField()

    def __str__(self) -> str:
        return f"{self.account}: {self.amount}"
