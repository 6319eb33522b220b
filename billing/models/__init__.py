from billing.models.accounts import AccountMode, BillingAccount, Standing, TaxRate
from billing.models.budgets import Budget, BudgetAlert, BudgetMode, BudgetScope
from billing.models.costrates import CostRate
from billing.models.credits import CreditGrant, CreditKind, CreditUse, Hold
from billing.models.invoices import (
    Invoice,
    InvoiceKind,
    InvoiceLine,
    InvoicePart,
    InvoiceSequence,
    InvoiceTax,
    LineKind,
)
from billing.models.ledger import AccountKind, LedgerAccount, LedgerEntry, LedgerTransaction
from billing.models.meters import Allocation, Meter, UsageInterval
from billing.models.notes import CreditNote, CreditNoteLine, CreditNoteTax, NoteRest
from billing.models.payments import DunningStep, Payment, PeriodClose, ProviderEvent, Refund
from billing.models.prices import PriceModel, PriceVersion
from billing.models.rollups import UsageHour
from billing.models.usage import UsageDay, UsageEvent

__all__ = [
    "AccountKind",
    "AccountMode",
    "Allocation",
    "BillingAccount",
    "Budget",
    "BudgetAlert",
    "BudgetMode",
    "BudgetScope",
    "CostRate",
    "CreditGrant",
    "CreditKind",
    "CreditNote",
    "CreditNoteLine",
    "CreditNoteTax",
    "CreditUse",
    "DunningStep",
    "Hold",
    "Invoice",
    "InvoiceKind",
    "InvoiceLine",
    "InvoicePart",
    "InvoiceSequence",
    "InvoiceTax",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerTransaction",
    "LineKind",
    "Meter",
    "NoteRest",
    "Payment",
    "PeriodClose",
    "PriceModel",
    "PriceVersion",
    "ProviderEvent",
    "Refund",
    "Standing",
    "TaxRate",
    "UsageDay",
    "UsageEvent",
    "UsageHour",
    "UsageInterval",
]
