"""Do the books agree? Every check compares two things that were written apart from each other."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import connection, transaction
from django.utils.translation import gettext as _

from billing import money
from billing.models import (
    AccountKind,
    BillingAccount,
    CreditGrant,
    CreditKind,
    CreditNote,
    Invoice,
    Payment,
    Refund,
)
from billing.months import Calendar
from billing.services import accounts, ledger, locks, receivables, rollups, timesheets, unbilled
from billing.states import PaymentStatus
from tenants import outbox
from tenants.models import Tenant, User

log = logging.getLogger(__name__)

_ALWAYS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
_INTERVALS = """
with held as (
  select i.allocation_id, sum(extract(epoch from i.ended_at - i.started_at) * i.units) as seconds
  from billing_usageinterval i join billing_allocation a on a.id = i.allocation_id
  where a.tenant_id = %s group by 1
), told as (
  select a.id as allocation_id, sum(e.quantity) as seconds
  from billing_usageevent e join billing_allocation a on a.public_id = e.dims ->> 'allocation'
  where e.tenant_id = %s and e.source = 'alloc' group by 1
)
select allocation_id, held.seconds, told.seconds
from held full join told using (allocation_id)
where held.seconds is distinct from told.seconds
"""
_DAYS = """
with events as (
  select (event_time at time zone 'UTC')::date as day, price_id, subject, user_label,
    sum(quantity) as quantity
  from billing_usageevent where tenant_id = %s group by 1, price_id, subject, user_label
), days as (
  select day, price_id, subject, user_label, quantity from billing_usageday where tenant_id = %s
)
select day, subject, events.quantity, days.quantity
from events full join days using (day, price_id, subject, user_label)
where events.quantity is distinct from days.quantity
"""


_HELD = """
select a.public_id, extract(epoch from a.settled_through - a.started_at) * a.units as held,
  coalesce(sum(extract(epoch from i.ended_at - i.started_at) * i.units), 0) as settled
from billing_allocation a left join billing_usageinterval i on i.allocation_id = a.id
where a.tenant_id = %s group by a.id
having extract(epoch from a.settled_through - a.started_at) * a.units
  <> coalesce(sum(extract(epoch from i.ended_at - i.started_at) * i.units), 0)
"""
_HOLDS = """
select h.source, h.released_at from billing_hold h where h.tenant_id = %s and h.released_at is null
  and exists (select 1 from billing_allocation a where a.hold_id = h.id)
  and not exists (select 1 from billing_allocation a where a.hold_id = h.id and a.ended_at is null)
"""


def check(tenant: Tenant, *, by_hour: bool = False) -> list[str]:
    """Every disagreement in the tenant's books, in words; an empty list is what we want.

    `by_hour` also sums every event again by hour and label, which an invoice has no time to wait for.
    """
    wrong = [f"allocation {row[0]}: held {row[1]}, told {row[2]}" for row in _rows(_INTERVALS, tenant, 2)]
    wrong += [f"{row[0]} {row[1]}: events {row[2]}, day {row[3]}" for row in _rows(_DAYS, tenant, 2)]
    wrong += [f"{row[0]}: held {row[1]} s, settled {row[2]} s" for row in _rows(_HELD, tenant, 1)]
    wrong += [f"hold {row[0]} outlived its work" for row in _rows(_HOLDS, tenant, 1)]
    wrong += timesheets.differences(tenant)
    if by_hour:
        wrong += rollups.differences(tenant, *_ALWAYS)
    before: Invoice | None = None
    calendar = accounts.calendar_of(tenant)
    invoices = list(Invoice.objects.filter(tenant=tenant).holding().order_by("period_end"))
    for invoice in invoices:
        wrong += _check_invoice(invoice, before, calendar)
        before = invoice
    return wrong + _check_ledger(tenant, invoices)


def _check_invoice(invoice: Invoice, before: Invoice | None, calendar: Calendar) -> list[str]:
    wrong = []
    lines = list(invoice.lines.prefetch_related("parts"))
    taxes = money.total(list(invoice.taxes.values_list("amount", flat=True)))
    if taxes != invoice.tax_total:
        wrong.append(f"{invoice}: taxes sum to {taxes}, not {invoice.tax_total}")
    if money.EXACT.add(money.total([line.amount for line in lines]), taxes) != invoice.total:
        wrong.append(f"{invoice}: lines do not sum to the total")
    used = money.total(list(invoice.credit_uses.values_list("amount", flat=True)))
    if used != max(invoice.credit_total, money.ZERO):
        wrong.append(f"{invoice}: took {used} of credit and says {invoice.credit_total}")
    for line in lines:
        if line.price_id and money.total([part.quantity for part in line.parts.all()]) != line.quantity:
            wrong.append(f"{invoice} line {line.position}: parts do not sum to the line")
    events = unbilled.covered_by(
        invoice.tenant_id, through_id=invoice.through_id, period_end=invoice.period_end, after=before
    )
    told: dict[tuple[int, bool, str], Decimal] = {}
    for one in unbilled.grouped(events, billed_to=before.period_end if before else None, calendar=calendar):
        key = (one.price.id, one.late, one.month)
        told[key] = told.get(key, money.ZERO) + one.quantity
    said: dict[tuple[int, bool, str], Decimal] = {}
    for line in lines:
        if line.price_id:
            key = (line.price_id, line.late, line.month)
            said[key] = said.get(key, money.ZERO) + line.quantity
    if told != said:
        wrong.append(f"{invoice}: lines and usage events differ")
    return wrong


def _check_ledger(tenant: Tenant, invoices: list[Invoice]) -> list[str]:
    """Each account of the ledger beside the documents it was booked from."""
    wrong = []
    grants = list(CreditGrant.objects.filter(tenant=tenant))
    payments = list(Payment.objects.filter(tenant=tenant, status=PaymentStatus.SUCCEEDED))
    refunds = list(Refund.objects.filter(tenant=tenant).select_related("payment"))
    notes = list(CreditNote.objects.filter(tenant=tenant))
    kinds = AccountKind
    everything: list[Any] = [*invoices, *grants, *payments, *notes]
    balances = ledger.balances(tenant)
    for currency in sorted({one.currency for one in everything}):

        def of(rows: Sequence[Any], name: str, currency: str = currency) -> Decimal:
            return money.total([getattr(row, name) for row in rows if row.currency == currency])

        bought = [one for one in grants if one.kind == CreditKind.PAID and not _from_payment(one)]
        given = [one for one in grants if one.kind == CreditKind.PROMO]
        back = money.total([one.amount for one in refunds if one.payment.currency == currency])
        expected = {
            kinds.RECEIVABLE: money.total(
                [receivables.outstanding(one) for one in invoices if one.currency == currency]
            ),
            kinds.REVENUE: of(notes, "net") - of(invoices, "net"),
            kinds.TAX: of(notes, "tax_total") - of(invoices, "tax_total"),
            kinds.CREDIT: -of(grants, "remaining"),
            kinds.PAYABLE: back - of(notes, "to_refund"),
            kinds.PROMO: of(given, "amount"),
            kinds.BREAKAGE: -of(grants, "broken"),
            kinds.CASH: of(payments, "amount") + of(bought, "amount") - back,
        }
        for kind, amount in expected.items():
            booked = balances.get((kind, currency), money.ZERO)
            if amount != booked:
                wrong.append(f"{kind}: documents say {amount} {currency}, the ledger {booked}")
    if money.total(list(balances.values())):
        wrong.append("the ledger does not sum to zero")
    return wrong


def _from_payment(grant: CreditGrant) -> bool:
    """Credit that a payment became: its cash is counted with the payment."""
    return grant.key.startswith(receivables.PAID_BY)


def check_all(tenants: Iterable[Tenant] | None = None) -> dict[str, list[str]]:
    """Check every account, park those whose books disagree and tell staff; {tenant id: what is wrong}."""
    found = {}
    rows = (
        Tenant.objects.filter(pk__in=BillingAccount.objects.values("tenant")) if tenants is None else tenants
    )
    for tenant in rows:
        with transaction.atomic():
            # no beat writes between two of the sums
            locks.close_for_invoice(tenant.pk)
            wrong = check(tenant, by_hour=True)
        if wrong:
            found[tenant.public_id] = wrong
            if accounts.park(tenant, "\n".join(wrong)):
                _alert(tenant, wrong)
    log.info("books checked", extra={"disagree": len(found)})
    return found


def _alert(tenant: Tenant, wrong: list[str]) -> None:
    log.error("books disagree", extra={"tenant": tenant.public_id, "wrong": wrong[:5]})
    for person in User.objects.filter(is_staff=True, is_active=True):
        outbox.mail(
            person.email,
            _("The books of %(tenant)s do not agree") % {"tenant": tenant.name},
            _("Nothing of this account is finalized until staff have looked.\n%(why)s")
            % {"why": "\n".join(wrong[:20])},
        )


def _rows(query: str, tenant: Tenant, times: int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, [tenant.pk] * times)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
