"""Closes months when they are over, ends accounts, and breaks credit that expired."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from billing import clock
from billing.errors import NothingToBill, NotYet
from billing.models import Allocation, BillingAccount, CreditGrant, Invoice, PeriodClose, UsageEvent
from billing.months import Month
from billing.services import accounts, credits, documents, invoices, locks, receivables, unbilled
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Refused
from tenants.models import Tenant
from tenants.permissions import require

log = logging.getLogger(__name__)

EXPIRY_GRACE = timedelta(hours=1)  # beats of before an expiry have arrived by then


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What one run of the close did."""

    invoiced: int = 0
    waiting: int = 0
    failed: int = 0


def close_due(*, tenant: Tenant | None = None, month: Month | None = None) -> Closed:
    """Finalize every month that is over, grace included, each account in a transaction of its own.

    A run that dies is taken up by the next: what is frozen is not due any more. One account's trouble is
    written down and never keeps the others waiting.
    """
    now = clock.now()
    counts = {"invoiced": 0, "waiting": 0, "failed": 0, "nothing": 0}
    rows = BillingAccount.objects.filter(parked_at=None).select_related("tenant").order_by("id")
    for account in rows if tenant is None else rows.filter(tenant=tenant):
        for due in due_months(account, now):
            if month is not None and due != month:
                continue
            outcome = _close(account, due, now)
            counts[outcome] += 1
            if outcome in {"waiting", "failed"}:
                break  # later months of this account come after
    log.info("months closed", extra=counts)
    return Closed(invoiced=counts["invoiced"], waiting=counts["waiting"], failed=counts["failed"])


def due_months(account: BillingAccount, now: datetime) -> list[Month]:
    """Months of an account that are over, beyond their grace, and have something to bill; oldest first."""
    tenant, calendar = account.tenant, account.calendar
    over = now - timedelta(minutes=account.grace_minutes)
    last = unbilled.last_invoice(tenant)
    months = set(invoices.open_months(tenant))
    newest = calendar.month_of(over).previous  # the last month that is over
    billed_to = last.period_end if last else None
    if billed_to is not None and _has_late(tenant, last):
        months.add(newest)  # late usage alone is billed once a month, of a closed account too
    if account.commitment and tenant.closed_at is None:
        month = calendar.month_of(billed_to or account.created_at)
        while month <= newest:
            months.add(month)
            month = month.next
    return sorted(
        month
        for month in months
        if calendar.end(month) <= over and (billed_to is None or billed_to < calendar.end(month))
    )


def _has_late(tenant: Tenant, last: Invoice | None) -> bool:
    if last is None:
        return False
    late = UsageEvent.objects.filter(tenant=tenant, id__gt=last.through_id, event_time__lt=last.period_end)
    return late.exists()


def _close(account: BillingAccount, month: Month, now: datetime) -> str:
    tenant, calendar = account.tenant, account.calendar
    invoice, detail = None, ""
    try:
        invoice = invoices.finalize(SYSTEM, tenant, month)
        outcome = "invoiced"
    except NothingToBill:
        outcome = "nothing"
    except NotYet as refusal:
        outcome, detail = "waiting", refusal.detail
    except Refused as refusal:
        outcome, detail = "failed", refusal.detail
        log.warning(
            "month not closed", extra={"tenant": tenant.public_id, "month": str(month), "why": detail}
        )
    with transaction.atomic():
        row, _made = PeriodClose.objects.get_or_create(
            tenant=tenant,
            period_start=calendar.start(month),
            defaults={"period_end": calendar.end(month), "outcome": outcome, "tried_at": now},
        )
        row.outcome, row.detail, row.invoice = outcome, detail[:400], invoice
        row.tries, row.tried_at = row.tries + 1, now
        row.save()
    return outcome


def close_account(actor: Actor, tenant: Tenant) -> list[Invoice]:
    """End a tenant at this instant: everything used up to now is invoiced and nothing new can begin.

    Refused while something runs. What arrives late is billed on a correction invoice. Its rows stay for as
    long as the books need them.
    """
    require(actor, "invoices.finalize")
    with transaction.atomic():
        locks.close_for_invoice(tenant.pk)
        account = accounts.lock(tenant)
        tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)
        if tenant.closed_at is not None:
            return list(Invoice.objects.filter(tenant=tenant, period_end=tenant.closed_at).holding())
        running = Allocation.objects.open().filter(tenant=tenant).count()
        if running:
            text = _("%(n)s things of this tenant still run. Stop them, then close the account.")
            raise Conflict(text % {"n": running})
        now = clock.now()
        tenant.closed_at = now
        tenant.save(update_fields=["closed_at"])
        made = []
        for month in invoices.open_months(tenant):
            early = account.calendar.end(month) > now
            try:
                made.append(invoices.finalize(actor, tenant, month, early=early))
            except NothingToBill:
                continue
        audit.record(actor, "tenant.closed", account, tenant=tenant, invoices=len(made))
    return made


def ensure_may_delete(tenant: Tenant) -> None:
    """Refuse to forget a tenant that owes money or has usage nobody has invoiced."""
    if receivables.open_invoices(tenant):
        raise Conflict(_("This tenant has unpaid invoices; it stays until they are paid or credited."))
    if tenant.closed_at is None or invoices.open_months(tenant):
        raise Conflict(_("This tenant has usage without an invoice. Close its account first."))


def expire_credit() -> int:
    """Break what expired lots will not be needed for by usage of before; returns how many lots lost something."""
    over = clock.now() - EXPIRY_GRACE
    expired = CreditGrant.objects.filter(Q(expires_at__lte=over), remaining__gt=0)
    tenants = Tenant.objects.filter(pk__in=expired.values("tenant")).order_by("id")
    return sum(_expire(tenant, over) for tenant in tenants)


@transaction.atomic
def _expire(tenant: Tenant, over: datetime) -> int:
    locks.close_for_invoice(tenant.pk)
    account = accounts.lock(tenant)
    lots = credits.lots_of(tenant, account.currency)
    kept = {lot.id: lot.remaining for lot in lots}
    for month in invoices.open_months(tenant):
        window = unbilled.window(tenant, month, period_end=account.calendar.end(month))
        made = documents.compose(tenant, account, month, window, lots=lots)
        for lot_id, amount in made.burnt.items():
            kept[lot_id] -= amount
        lots = [replace(lot, remaining=kept[lot.id]) for lot in lots]
    now, broken = clock.now(), 0
    for grant in CreditGrant.objects.filter(tenant=tenant, expires_at__lte=over, remaining__gt=0):
        keep = grant.remaining - kept[grant.pk]
        broken += bool(credits.break_rest(grant, keep=keep, now=now))
    return broken
