from billing.models.budgets import Budget, BudgetAlert, BudgetMode
from billing.models.invoices import Invoice, InvoiceLine, InvoicePart, InvoiceSequence
from billing.models.ledger import AccountKind, LedgerAccount, LedgerEntry, LedgerTransaction
from billing.models.meters import Allocation, Meter, UsageInterval
from billing.models.prices import PriceVersion
from billing.models.rollups import UsageHour
from billing.models.usage import UsageDay, UsageEvent

__all__ = [
    "AccountKind",
    "Allocation",
    "Budget",
    "BudgetAlert",
    "BudgetMode",
    "Invoice",
    "InvoiceLine",
    "InvoicePart",
    "InvoiceSequence",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerTransaction",
    "Meter",
    "PriceVersion",
    "UsageDay",
    "UsageEvent",
    "UsageHour",
    "UsageInterval",
]
