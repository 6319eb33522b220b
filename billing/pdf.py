"""An invoice as PDF. The same invoice always gives the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

from django.utils import translation
from django.utils.translation import gettext as _
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from billing import money
from billing.models import InvoiceKind, InvoiceLine, LineKind
from billing.services.documents import Document

CHINESE = "STSong-Light"  # named, not embedded: every reader brings it
INK, MUTED, RULE = colors.HexColor("#1b1d28"), colors.HexColor("#5d6275"), colors.HexColor("#d8dae5")


def render(document: Document, *, language: str = "") -> bytes:
    """A4, one table of lines, each with what it was spent on, in the language of the invoice or another."""
    invoice = document.invoice
    with translation.override(language or invoice.language):
        names = {"number": invoice.number}
        title = _("Invoice %(number)s") % names
        if invoice.kind == InvoiceKind.CORRECTION:
            title = _("Correction invoice %(number)s") % names
        heading = [text(invoice.seller_name, 11, MUTED), text(title, 20, space=14)]
        if invoice.is_void:
            heading.append(text(_("VOID: taken back as a whole. Its usage is billed anew."), 11, space=8))
        return build(
            title,
            invoice.seller_name,
            [
                *heading,
                facts(_facts(document)),
                Spacer(1, 10 * mm),
                _lines(document),
                Spacer(1, 6 * mm),
                sums(_sums(document)),
                Spacer(1, 10 * mm),
                text(_("Items are unrounded; each line is rounded once, half up. Times are UTC."), 8, MUTED),
                text(_("SHA-256 of the content: %(hash)s") % {"hash": invoice.content_hash}, 7, MUTED),
            ],
        )


def _facts(document: Document) -> list[tuple[str, str]]:
    invoice = document.invoice
    rows = [
        (_("Billed to"), f"{invoice.buyer_name} ({invoice.buyer_id})"),
        *(("", line) for line in invoice.buyer_details.splitlines() if line.strip()),
        (_("Period"), f"{day(invoice.period_start)} – {day(invoice.period_end)}"),
        (_("Issued"), day(invoice.finalized_at) if invoice.finalized_at else ""),
        (_("Currency"), invoice.currency),
    ]
    if invoice.due_at and invoice.due > 0:
        rows.append((_("Pay by"), f"{invoice.due_at.astimezone(UTC):%Y-%m-%d}"))
    return rows


def _sums(document: Document) -> list[tuple[str, str]]:
    invoice = document.invoice

    def amount(value: Decimal) -> str:
        return f"{money.text(value, invoice.currency)} {invoice.currency}"

    rows = []
    if document.taxes:
        rows.append((_("Without tax"), amount(invoice.net)))
    for tax in document.taxes:
        of = money.text(tax.taxable, invoice.currency)
        rows.append((f"{tax.title} {tax.shown_percent} % ({of})", amount(tax.amount)))
    rows.append((_("Total"), amount(invoice.total)))
    if invoice.credit_total > 0:
        rows.append((_("Paid from credit"), amount(-invoice.credit_total)))
    if invoice.credit_total < 0:
        rows.append((_("Becomes credit"), amount(-invoice.credit_total)))
    if invoice.credit_total:
        rows.append((_("To pay"), amount(invoice.due)))
    return rows


def _lines(document: Document) -> Table:
    currency = document.invoice.currency
    rows = [
        [
            text(name, 8, MUTED, right=at > 0)
            for at, name in enumerate(["", _("Quantity"), _("Price"), _("Amount")])
        ]
    ]
    rules = []
    for line, parts in document.lines:
        rules.append(("LINEABOVE", (0, len(rows)), (-1, len(rows)), 0.5, RULE))
        when = f"{day(line.started_at)} – {day(line.ended_at)}"
        times = "× " if line.unit[:1].isdigit() else ""
        said = [when]
        if line.kind == LineKind.TAKEN_BACK:
            said.insert(0, _("Taken back, said anew below"))
        elif line.late:
            said.insert(0, _("Late usage of an earlier period"))
        rows.append(
            [
                [text(_(line.title), 9.5), text(", ".join(said), 7.5, MUTED)],
                text(f"{_short(line.natural_quantity)} {times}{_(line.unit)}", 9, right=True),
                text(_priced(line, currency), 9, right=True),
                text(money.text(line.amount, currency), 9.5, right=True),
            ]
        )
        for part in parts:
            rows.append(
                [
                    text(f"{part.subject_title}  {part.subject}", 7.5, MUTED),
                    text(_short(money.EXACT.divide(part.quantity, line.unit_size)), 7.5, MUTED, right=True),
                    "",
                    text(_short(part.exact), 7.5, MUTED, right=True),
                ]
            )
    table = Table(rows, colWidths=[80 * mm, 40 * mm, 20 * mm, 25 * mm], repeatRows=1)
    padding = [
        (f"{side}PADDING", (0, 0), (-1, -1), size) for side, size in (("LEFT", 0), ("RIGHT", 0), ("TOP", 2))
    ]
    table.setStyle(TableStyle([*padding, ("VALIGN", (0, 0), (-1, -1), "TOP"), *rules]))
    return table


def build(title: str, author: str, story: list[Any]) -> bytes:
    """The bytes of a document on A4; the same story always gives the same ones."""
    pdfmetrics.registerFont(UnicodeCIDFont(CHINESE))
    out = BytesIO()
    page = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=20 * mm,
        rightMargin=20 * mm,
        topMargin=20 * mm,
        bottomMargin=20 * mm,
        title=title,
        author=author,
        invariant=1,
    )
    page.build(story)
    return out.getvalue()


def facts(rows: list[tuple[str, str]]) -> Table:
    """Names at the left, values beside them."""
    pdfmetrics.registerFont(UnicodeCIDFont(CHINESE))
    table = Table(
        [[text(name, 9, MUTED), text(value, 9)] for name, value in rows], colWidths=[28 * mm, 137 * mm]
    )
    table.setStyle(TableStyle([("LEFTPADDING", (0, 0), (-1, -1), 0), ("TOPPADDING", (0, 0), (-1, -1), 1)]))
    return table


def sums(rows: list[tuple[str, str]]) -> Table:
    """Sums at the right, the last one large."""
    last = len(rows) - 1
    table = Table(
        [
            [
                text(name, 12 if at == last else 9, INK if at == last else MUTED, right=True),
                text(value, 12 if at == last else 9, right=True),
            ]
            for at, (name, value) in enumerate(rows)
        ],
        colWidths=[110 * mm, 55 * mm],
    )
    table.setStyle(
        TableStyle([("RIGHTPADDING", (0, 0), (-1, -1), 0), ("LINEABOVE", (0, last), (-1, last), 0.5, RULE)])
    )
    return table


def text(
    words: str, size: float, colour: colors.Color = INK, *, right: bool = False, space: float = 0
) -> Paragraph:
    """A paragraph in the font that has its letters."""
    words = str(words)
    western = all(ord(letter) < 0x250 or letter == "–" for letter in words)
    style = ParagraphStyle(
        "text",
        fontName="Helvetica" if western else CHINESE,
        fontSize=size,
        leading=size * 1.3,
        textColor=colour,
        spaceAfter=space,
        alignment=TA_RIGHT if right else 0,
        wordWrap=None if western else "CJK",
    )
    return Paragraph(escape(words), style)


def _short(quantity: Decimal) -> str:
    """A natural quantity with at most six digits after the point; the page has no room for more."""
    return money.plain(round(quantity, 6))


def _priced(line: InvoiceLine, currency: str) -> str:
    """A price with the currency's places, or more where it has more; nothing where tiers decide."""
    if line.month and not line.unit_price:
        return _("by tier")
    rounded = money.text(line.unit_price, currency)
    return rounded if Decimal(rounded) == line.unit_price else money.plain(line.unit_price)


def day(moment: datetime) -> str:
    """A moment on paper: UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
