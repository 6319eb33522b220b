"""Do the books agree? Every check compares two things that were written apart from each other."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db import connection

from billing import money
from billing.models import AccountKind, Invoice, LedgerEntry
from billing.services import ledger, unbilled
from billing.states import InvoiceStatus
from tenants.models import Tenant

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


def check(tenant: Tenant) -> list[str]:
    """Every disagreement in the tenant's books, in words; an empty list is what we want."""
    wrong = [f"allocation {row[0]}: held {row[1]}, told {row[2]}" for row in _rows(_INTERVALS, tenant)]
    wrong += [f"{row[0]} {row[1]}: events {row[2]}, day {row[3]}" for row in _rows(_DAYS, tenant)]
    before: Invoice | None = None
    frozen = Invoice.objects.filter(tenant=tenant).exclude(status=InvoiceStatus.DRAFT)
    for invoice in frozen.order_by("period_end"):
        wrong += _check_invoice(invoice, before)
        before = invoice
    for currency in set(frozen.values_list("currency", flat=True)):
        owed = money.total(list(frozen.filter(currency=currency).values_list("total", flat=True)))
        booked = ledger.balance(tenant, AccountKind.RECEIVABLE, currency)
        if owed != booked:
            wrong.append(f"invoices say {owed} {currency}, the ledger {booked}")
    entries = LedgerEntry.objects.filter(account__tenant=tenant)
    if money.total(list(entries.values_list("amount", flat=True))):
        wrong.append("the ledger does not sum to zero")
    return wrong


def _check_invoice(invoice: Invoice, before: Invoice | None) -> list[str]:
    wrong = []
    lines = list(invoice.lines.prefetch_related("parts"))
    if money.total([line.amount for line in lines]) != invoice.total:
        wrong.append(f"{invoice}: lines do not sum to the total")
    for line in lines:
        if money.total([part.quantity for part in line.parts.all()]) != line.quantity:
            wrong.append(f"{invoice} line {line.position}: parts do not sum to the line")
    events = unbilled.covered_by(
        invoice.tenant_id, through_id=invoice.through_id, period_end=invoice.period_end, after=before
    )
    told: dict[tuple[int, bool], Decimal] = {}
    for one in unbilled.grouped(events, billed_to=before.period_end if before else None):
        key = (one.price.id, one.late)
        told[key] = told.get(key, money.ZERO) + one.quantity
    if told != {(line.price_id, line.late): line.quantity for line in lines}:
        wrong.append(f"{invoice}: lines and usage events differ")
    return wrong


def _rows(query: str, tenant: Tenant) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, [tenant.pk, tenant.pk])
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found
