"""A credit note as PDF. The same note always gives the same bytes."""

from __future__ import annotations

from decimal import Decimal

from django.utils import translation
from django.utils.translation import gettext as _
from reportlab.lib.units import mm
from reportlab.platypus import Spacer

from billing import money
from billing.models import CreditNote
from billing.pdf import MUTED, build, day, facts, sums, text


def render(note: CreditNote, *, language: str = "") -> bytes:
    """A4: which invoice it takes back from, what of each line, the tax by rate, and where the sum went."""
    invoice = note.invoice

    def amount(value: Decimal) -> str:
        return f"{money.text(value, note.currency)} {note.currency}"

    with translation.override(language or invoice.language):
        title = _("Credit note %(number)s") % {"number": note.number}
        rows = [
            (_("Billed to"), f"{invoice.buyer_name} ({invoice.buyer_id})"),
            *(("", line) for line in invoice.buyer_details.splitlines() if line.strip()),
            (
                _("Of invoice"),
                f"{invoice.number}, {day(invoice.finalized_at)}" if invoice.finalized_at else "",
            ),
            (_("Issued"), day(note.issued_at)),
            (_("Reason"), note.reason),
        ]
        lines = [
            (f"{line.line.position}. {_(line.line.title)}", amount(line.amount))
            for line in note.lines.select_related("line")
        ]
        lines += [(f"{tax.title} {tax.shown_percent} %", amount(tax.amount)) for tax in note.taxes.all()]
        went = [
            (_("Off what was unpaid"), note.off_receivable),
            (_("Became credit"), note.to_credit),
            (_("Is paid back"), note.to_refund),
        ]
        return build(
            title,
            invoice.seller_name,
            [
                text(invoice.seller_name, 11, MUTED),
                text(title, 20, space=14),
                facts(rows),
                Spacer(1, 10 * mm),
                sums([*lines, (_("Total"), amount(note.total))]),
                Spacer(1, 8 * mm),
                facts([(name, amount(value)) for name, value in went if value]),
                Spacer(1, 10 * mm),
                text(_("SHA-256 of the content: %(hash)s") % {"hash": note.content_hash}, 7, MUTED),
            ],
        )
