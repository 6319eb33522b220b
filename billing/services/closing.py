"""Closes months when they are over, ends accounts, and breaks credit that expired."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Self

from django.db import DataError, transaction
from django.db.models import F, Q
from django.utils.translation import gettext as _

from billing import clock
from billing.errors import NothingToBill, NotYet
from billing.models import (
    Allocation,
    BillingAccount,
    CreditGrant,
    Invoice,
    PeriodClose,
    UsageDay,
    UsageEvent,
)
from billing.months import Month
from billing.services import accounts, credits, documents, invoices, locks, receivables, unbilled
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Refused
from tenants.models import Tenant
from tenants.permissions import require

log = logging.getLogger(__name__)

READ_ACCOUNTS = 200  # what says which months are due is read for so many accounts together
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
    everyone = list(rows if tenant is None else rows.filter(tenant=tenant))
    for first in range(0, len(everyone), READ_ACCOUNTS):
        some = everyone[first : first + READ_ACCOUNTS]
        known = _Known.of(some)
        for account in some:
            for due in due_months(account, now, known):
                if month is not None and due != month:
                    continue
                outcome = _close(account, due, now)
                counts[outcome] += 1
                if outcome in {"waiting", "failed"}:
                    break  # later months of this account come after
    log.info("months closed", extra=counts)
    return Closed(invoiced=counts["invoiced"], waiting=counts["waiting"], failed=counts["failed"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What says which months of some accounts are due, read for all of them together."""

    last: dict[int, Invoice]  # tenant -> the invoice that ends last
    days: dict[int, list[date]]  # tenant -> days with usage, from about where that invoice ends

    @classmethod
    def of(cls, some: Sequence[BillingAccount]) -> Self:
        tenants = [account.tenant_id for account in some]
        newest = Invoice.objects.filter(tenant__in=tenants).holding().order_by("tenant_id", "-period_end")
        last = {invoice.tenant_id: invoice for invoice in newest.distinct("tenant_id")}
        calendars = {account.tenant_id: account.calendar for account in some}
        # a month that is not billed to its end may have begun before the last invoice ended
        since = [
            calendars[pk].start(calendars[pk].month_of(one.period_end)).date() for pk, one in last.items()
        ]
        rows = UsageDay.objects.filter(tenant__in=[pk for pk in tenants if pk not in last])
        if last:
            rows |= UsageDay.objects.filter(tenant__in=last, day__gte=min(since))
        days: dict[int, list[date]] = {}
        for pk, day in rows.order_by().values_list("tenant_id", "day").distinct():
            days.setdefault(pk, []).append(day)
        return cls(last=last, days=days)


def due_months(account: BillingAccount, now: datetime, known: _Known) -> list[Month]:
    """Months of an account that are over, beyond their grace, and have something to bill; oldest first."""
    tenant, calendar = account.tenant, account.calendar
    over = now - timedelta(minutes=account.grace_minutes)
    last = known.last.get(tenant.pk)
    months = set(invoices.months_open(calendar, known.days.get(tenant.pk, []), last))
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
    tenant, detail = account.tenant, ""
    try:
        with transaction.atomic():
            invoice = invoices.finalize(SYSTEM, tenant, month)
            _note(account, month, now, "invoiced", invoice=invoice)
        return "invoiced"
    except NothingToBill:
        outcome = "nothing"
    except NotYet as refusal:
        outcome, detail = "waiting", refusal.detail
    except (Refused, DataError, ArithmeticError) as refusal:
        # a sum that no column holds is this account's trouble alone
        outcome, detail = "failed", refusal.detail if isinstance(refusal, Refused) else str(refusal)
        log.warning(
            "month not closed", extra={"tenant": tenant.public_id, "month": str(month), "why": detail}
        )
    _note(account, month, now, outcome, detail=detail)
    return outcome


def _note(
    account: BillingAccount,
    month: Month,
    now: datetime,
    outcome: str,
    *,
    detail: str = "",
    invoice: Invoice | None = None,
) -> None:
    """Write down how this try to close a month ended."""
    start, end = account.calendar.start(month), account.calendar.end(month)
    said = {"outcome": outcome, "detail": detail[:400], "invoice": invoice, "tried_at": now}
    rows = PeriodClose.objects.filter(tenant=account.tenant, period_start=start)
    if not rows.update(tries=F("tries") + 1, **said):
        new = PeriodClose(tenant=account.tenant, period_start=start, period_end=end, tries=1, **said)
        # another run may have written its own just now: that one says the same
        PeriodClose.objects.bulk_create([new], ignore_conflicts=True)


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
    last = unbilled.last_invoice(tenant)
    for month in invoices.open_months(tenant):
        end = account.calendar.end(month)
        window = unbilled.window(tenant, month, period_end=end, calendar=account.calendar, last=last)
        made = documents.compose(tenant, account, month, window, lots=lots)
        for lot_id, amount in made.burnt.items():
            kept[lot_id] -= amount
        lots = [replace(lot, remaining=kept[lot.id]) for lot in lots]
    now, broken = clock.now(), 0
    for grant in CreditGrant.objects.filter(tenant=tenant, expires_at__lte=over, remaining__gt=0):
        keep = grant.remaining - kept[grant.pk]
        broken += bool(credits.break_rest(grant, keep=keep, now=now))
    return broken
