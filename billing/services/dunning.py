"""What happens while an invoice stays unpaid: reminders first, then no new work, then running work stops."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from billing import clock, money
from billing.models import DunningStep, Invoice, Standing
from billing.services import receivables
from billing.states import InvoiceStatus
from tenants import audit, outbox
from tenants.actor import SYSTEM
from tenants.models import Membership, Tenant
from tenants.roles import Role

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: so many days after the day an invoice was due."""

    key: str
    days: int
    says: str


STEPS: tuple[Step, ...] = (
    Step(key="remind", days=1, says=gettext_noop("Please pay it now.")),
    Step(key="remind_again", days=7, says=gettext_noop("In a week new work will be refused.")),
    Step(
        key=Standing.BLOCK_NEW,
        days=14,
        says=gettext_noop("New work is refused until it is paid. What runs goes on for now."),
    ),
    Step(
        key=Standing.STOP,
        days=30,
        says=gettext_noop("Running work is stopped at its next checkpoint. Data and models stay."),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A step of an invoice with its date, and when it was taken."""

    step: Step
    on: date
    taken_at: datetime | None


def plan(invoice: Invoice) -> list[Planned]:
    """Every step of an unpaid invoice, past and to come, with dates; nothing once nothing is owed."""
    if invoice.due_at is None or invoice.status != InvoiceStatus.FINALIZED:
        return []
    taken = dict(invoice.dunning.values_list("step", "taken_at"))
    return [Planned(step=step, on=_on(invoice.due_at, step), taken_at=taken.get(step.key)) for step in STEPS]


def chase() -> int:
    """Take every step that is due on unpaid invoices, each once; returns how many were taken."""
    now = clock.now()
    overdue = Invoice.objects.filter(status=InvoiceStatus.FINALIZED, due_at__lt=now).order_by("due_at", "id")
    return sum(_chase(invoice_id, now) for invoice_id in overdue.values_list("pk", flat=True))


@transaction.atomic
def _chase(invoice_id: int, now: datetime) -> int:
    # a payment that arrives in between has the last word
    invoice = Invoice.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=invoice_id)
    left = receivables.outstanding(invoice)
    if invoice.status != InvoiceStatus.FINALIZED or invoice.due_at is None or left <= 0:
        return 0
    due_at: datetime = invoice.due_at
    new = [
        step
        for step in STEPS
        if _on(due_at, step) <= now.astimezone(UTC).date()
        and DunningStep.objects.get_or_create(
            invoice=invoice, step=step.key, defaults={"due_on": _on(due_at, step), "taken_at": now}
        )[1]
    ]
    if not new:
        return 0
    receivables.refresh_standing(invoice.tenant)
    for step in new:
        audit.record(SYSTEM, "invoice.dunned", invoice, step=step.key)
    _tell(invoice.tenant, invoice, left, new)
    log.info("dunned", extra={"invoice": invoice.public_id, "steps": [step.key for step in new]})
    return len(new)


def _tell(tenant: Tenant, invoice: Invoice, left: Decimal, steps: Sequence[Step]) -> None:
    """One mail, with the gravest step, however many are caught up at once."""
    who = Membership.objects.filter(
        tenant=tenant, role__in=[Role.OWNER, Role.BILLING], user__is_active=True
    ).select_related("user")
    said = {
        "number": invoice.number,
        "amount": f"{money.text(left, invoice.currency)} {invoice.currency}",
        "day": f"{invoice.due_at:%Y-%m-%d}",
        "what": _(steps[-1].says),
        "url": f"{settings.BASE_URL}{invoice.get_absolute_url()}",
    }
    for member in who:
        outbox.mail(
            member.user.email,
            _("%(number)s is overdue") % said,
            _("%(amount)s of %(number)s was due on %(day)s. %(what)s\n%(url)s") % said,
        )


def _on(due_at: datetime, step: Step) -> date:
    return (due_at.astimezone(UTC) + timedelta(days=step.days)).date()
