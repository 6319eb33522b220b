"""What the ledger refuses."""

from __future__ import annotations

from django.utils.translation import gettext_noop as _

from tenants.errors import Conflict, Refused


class BudgetReached(Refused):
    """This month's budget does not leave room for this. Raise the budget or wait for the next month."""

    status = 409
    code = "budget_reached"


class NotEnoughCredit(BudgetReached):
    """The credit of this tenant does not cover this. Add credit, or wait until running work has ended."""

    code = "not_enough_credit"


class UnpaidInvoices(BudgetReached):
    """New work is refused while invoices are overdue. Pay them on the Invoices page."""

    code = "unpaid_invoices"


class Parked(Conflict):
    """The books of this tenant do not agree, so nothing is finalized until staff have looked."""

    code = "parked"


class NotYet(Conflict):
    """This cannot be done yet. Try again later."""

    code = "not_yet"


class NothingToBill(Conflict):
    """There is no usage to bill in this period."""

    code = "nothing_to_bill"


# the messages above once more, where makemessages finds them
_MESSAGES = (
    _("This month's budget does not leave room for this. Raise the budget or wait for the next month."),
    _("The credit of this tenant does not cover this. Add credit, or wait until running work has ended."),
    _("New work is refused while invoices are overdue. Pay them on the Invoices page."),
    _("The books of this tenant do not agree, so nothing is finalized until staff have looked."),
    _("This cannot be done yet. Try again later."),
    _("There is no usage to bill in this period."),
)
