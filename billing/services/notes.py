"""Credit notes: what a frozen invoice took too much is given back by a document of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils.translation import gettext as _

from billing import clock, money
from billing.models import (
    AccountKind,
    CreditKind,
    CreditNote,
    CreditNoteLine,
    CreditNoteTax,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    NoteRest,
)
from billing.services import accounts, credits, invoices, ledger, receivables
from billing.states import InvoiceStatus
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict, Fault, Hidden, Invalid
from tenants.models import AuditEntry
from tenants.permissions import require

SERIES = "CN"
ISSUED = "note.issued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """An invoice line beside what notes may still take back of it, without tax."""

    line: InvoiceLine
    left: Decimal


def readable_by(actor: Actor) -> QuerySet[CreditNote]:
    """Credit notes this actor may read: their tenant's; staff with reports read all."""
    if actor.may("platform.reports"):
        return CreditNote.objects.all()  # type: ignore[no-any-return]
    return CreditNote.objects.visible_to(actor)  # type: ignore[no-any-return]


def find(actor: Actor, public_id: str) -> CreditNote:
    """The note of a public id, or Hidden."""
    found = readable_by(actor).select_related("invoice", "tenant").filter(public_id=public_id).first()
    if found is None:
        raise Hidden
    return found


def issuers(notes: Iterable[CreditNote]) -> dict[str, str]:
    """{public id: who issued it}, as the audit log has it."""
    named = {note.public_id: note.tenant_id for note in notes}
    said = AuditEntry.objects.filter(tenant__in=set(named.values()), action=ISSUED, target_id__in=list(named))
    return dict(said.values_list("target_id", "actor_label"))


def rooms(invoice: Invoice) -> list[Room]:
    """Every line above zero of an invoice with what is left of it."""
    noted = dict(
        CreditNoteLine.objects.filter(line__invoice=invoice)
        .values_list("line")
        .annotate(sum=Sum("amount"))
        .values_list("line", "sum")
    )
    lines = invoice.lines.filter(amount__gt=0)
    return [Room(line=line, left=line.amount - noted.get(line.pk, money.ZERO)) for line in lines]


def issue_note(
    actor: Actor,
    invoice: Invoice,
    *,
    amounts: Mapping[int, Decimal],
    reason: str,
    rest: str,
    key: str,
) -> CreditNote:
    """Take back amounts without tax of lines {position: amount}; tax follows by rate.

    The sum first lowers what is unpaid; the `rest` becomes credit or is owed back as a refund. The same key
    again returns the first note. More than a line has left is refused.
    """
    require(actor, "invoices.finalize")
    if not reason.strip():
        raise Invalid.at("/reason", "required", _("Say what the credit note is for."))
    if rest not in NoteRest.values:
        text = _("What is left over becomes %(known)s.") % {"known": ", ".join(NoteRest.values)}
        raise Invalid.at("/rest", "unknown", text)
    with transaction.atomic():
        account = accounts.lock(invoice.tenant)
        invoice = Invoice.objects.select_for_update().get(pk=invoice.pk)
        if known := CreditNote.objects.filter(invoice=invoice, key=key).first():
            _same_again(known, amounts)
            return known
        if invoice.status not in {InvoiceStatus.FINALIZED, InvoiceStatus.PAID}:
            raise Conflict(_("Only a finalized invoice that is not void can be credited."))
        if account.is_parked:
            raise Conflict(
                _("The books of this tenant do not agree, so nothing is finalized until staff have looked.")
            )
        taken = _checked(invoice, amounts)
        return _write(actor, invoice, taken, reason=reason.strip(), rest=rest, key=key)


def _checked(invoice: Invoice, amounts: Mapping[int, Decimal]) -> list[tuple[InvoiceLine, Decimal]]:
    known = {room.line.position: room for room in rooms(invoice)}
    faults, taken = [], []
    for position, amount in sorted(amounts.items()):
        pointer = f"/amounts/{position}"
        room = known.get(position)
        if room is None:
            faults.append(Fault(pointer, "unknown", _("There is no such line to credit.")))
        elif not amount.is_finite() or amount <= 0 or amount != money.round_line(amount, invoice.currency):
            text = _("An amount is more than zero, in the currency's own places.")
            faults.append(Fault(pointer, "invalid", text))
        elif amount > room.left:
            left = money.text(room.left, invoice.currency)
            text = _("Only %(left)s %(currency)s of this line are left to credit.")
            faults.append(Fault(pointer, "too_much", text % {"left": left, "currency": invoice.currency}))
        else:
            taken.append((room.line, amount))
    if not faults and not taken:
        faults.append(Fault("/amounts", "required", _("Say which lines are credited, and how much.")))
    if faults:
        raise Invalid(faults[0].detail, faults=faults)
    return taken


def _write(
    actor: Actor,
    invoice: Invoice,
    taken: Sequence[tuple[InvoiceLine, Decimal]],
    *,
    reason: str,
    rest: str,
    key: str,
) -> CreditNote:
    now, currency = clock.now(), invoice.currency
    taxes = _taxes(invoice, taken)
    net = money.total([amount for _line, amount in taken])
    tax_total = money.total([amount for _tax, _taxable, amount in taxes])
    total = money.EXACT.add(net, tax_total)
    off = min(total, receivables.outstanding(invoice))
    left = total - off
    note = CreditNote(
        tenant=invoice.tenant,
        invoice=invoice,
        number=invoices.next_number(SERIES),
        key=key,
        reason=reason[:200],
        currency=currency,
        net=net,
        tax_total=tax_total,
        total=total,
        off_receivable=off,
        to_credit=left if rest == NoteRest.CREDIT else money.ZERO,
        to_refund=left if rest == NoteRest.REFUND else money.ZERO,
        issued_at=now,
    )
    note.content_hash = _hash(note, taken, taxes)
    note.save()
    for line, amount in taken:
        CreditNoteLine.objects.create(note=note, line=line, amount=amount)
    for tax, taxable, amount in taxes:
        CreditNoteTax.objects.create(
            note=note, title=tax.title, percent=tax.percent, taxable=taxable, amount=amount
        )
    if note.to_credit:
        credits.book(
            invoice.tenant,
            amount=note.to_credit,
            currency=currency,
            kind=CreditKind.REFUND,
            key=f"note:{note.public_id}",
            now=now,
            note=note.number,
        )
    ledger.post(
        invoice.tenant,
        key=f"note:{note.public_id}",
        currency=currency,
        amounts={
            AccountKind.REVENUE: net,
            AccountKind.TAX: tax_total,
            AccountKind.RECEIVABLE: -off,
            AccountKind.CREDIT: -note.to_credit,
            AccountKind.PAYABLE: -note.to_refund,
        },
        invoice=invoice,
    )
    audit.record(actor, ISSUED, note, total=str(total), reason=reason)
    receivables.settle(actor, invoice)
    return note


def _taxes(
    invoice: Invoice, taken: Sequence[tuple[InvoiceLine, Decimal]]
) -> list[tuple[InvoiceTax, Decimal, Decimal]]:
    """Per rate: what these lines take back of the tax; all notes together never more than the invoice has.

    Each note takes the tax of everything credited so far less what notes took before: cents never drift.
    """
    found = []
    for tax in invoice.taxes.all():
        lines = [amount for line, amount in taken if line.tax_percent == tax.percent]
        taxable = money.total(lines)
        if not taxable:
            continue
        earlier = CreditNoteTax.objects.filter(
            note__invoice=invoice, percent=tax.percent, title=tax.title
        ).aggregate(net=Sum("taxable"), tax=Sum("amount"))
        so_far = money.EXACT.add(earlier["net"] or money.ZERO, taxable)
        whole = money.round_line(money.percent_of(so_far, tax.percent), invoice.currency)
        if tax.amount >= 0:
            whole = min(whole, tax.amount) if so_far <= tax.taxable else whole
        found.append((tax, taxable, whole - (earlier["tax"] or money.ZERO)))
    return found


def _same_again(known: CreditNote, amounts: Mapping[int, Decimal]) -> None:
    before = {line.line.position: line.amount for line in known.lines.select_related("line")}
    if before != dict(amounts):
        raise Conflict(_("This key was used for another credit note. Use a key of its own for each."))


def _hash(
    note: CreditNote,
    taken: Sequence[tuple[InvoiceLine, Decimal]],
    taxes: Sequence[tuple[InvoiceTax, Decimal, Decimal]],
) -> str:
    """SHA-256 of everything the note says."""
    said = {
        "number": note.number,
        "invoice": note.invoice.number,
        "reason": note.reason,
        "currency": note.currency,
        "issued_at": note.issued_at.isoformat(),
        "lines": [[line.position, money.text(amount, note.currency)] for line, amount in taken],
        "taxes": [
            [tax.title, money.plain(tax.percent), money.text(amount, note.currency)]
            for tax, _taxable, amount in taxes
        ],
        "total": money.text(note.total, note.currency),
        "rest": [
            money.text(part, note.currency) for part in (note.off_receivable, note.to_credit, note.to_refund)
        ],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
