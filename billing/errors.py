"""What the ledger refuses."""

from __future__ import annotations

from django.utils.translation import gettext_noop as _

from tenants.errors import Conflict, Refused


class BudgetReached(Refused):
    """This month's budget does not leave room for this. Raise the budget or wait for the next month."""

    status = 409
    code = "budget_reached"


class NotYet(Conflict):
    """This cannot be done yet. Try again later."""

    code = "not_yet"


class NothingToBill(Conflict):
    """There is no usage to bill in this period."""

    code = "nothing_to_bill"


# the messages above once more, where makemessages finds them
_MESSAGES = (
    _("This month's budget does not leave room for this. Raise the budget or wait for the next month."),
    _("This cannot be done yet. Try again later."),
    _("There is no usage to bill in this period."),
)
