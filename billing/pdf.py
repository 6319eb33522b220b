"""An invoice as PDF. The same invoice always gives the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from billing import money
from billing.services.documents import Document

CHINESE = "STSong-Light"  # named, not embedded: every reader brings it
_INK, _MUTED, _RULE = colors.HexColor("#1b1d28"), colors.HexColor("#5d6275"), colors.HexColor("#d8dae5")


def render(document: Document) -> bytes:
    """A4, one table of lines, each with what it was spent on."""
    pdfmetrics.registerFont(UnicodeCIDFont(CHINESE))
    invoice, out = document.invoice, BytesIO()
    page = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=20 * mm,
        rightMargin=20 * mm,
        topMargin=20 * mm,
        bottomMargin=20 * mm,
        title=f"Invoice {invoice.number}",
        author=invoice.seller_name,
        invariant=1,
    )
    page.build(
        [
            _text(invoice.seller_name, 11, _MUTED),
            _text(f"Invoice {invoice.number}", 20, space=14),
            _facts(document),
            Spacer(1, 10 * mm),
            _lines(document),
            Spacer(1, 6 * mm),
            _text(f"Total {money.text(invoice.total, invoice.currency)} {invoice.currency}", 14, right=True),
            Spacer(1, 10 * mm),
            _text("Items are unrounded; each line is rounded once, half up. Times are UTC.", 8, _MUTED),
            _text(f"SHA-256 of the content: {invoice.content_hash}", 7, _MUTED),
        ]
    )
    return out.getvalue()


def _facts(document: Document) -> Table:
    invoice = document.invoice
    rows = [
        ("Billed to", f"{invoice.buyer_name} ({invoice.buyer_id})"),
        ("Period", f"{_day(invoice.period_start)} to {_day(invoice.period_end)}"),
        ("Issued", _day(invoice.finalized_at) if invoice.finalized_at else ""),
        ("Currency", invoice.currency),
    ]
    table = Table(
        [[_text(name, 9, _MUTED), _text(value, 9)] for name, value in rows], colWidths=[28 * mm, 137 * mm]
    )
    table.setStyle(TableStyle([("LEFTPADDING", (0, 0), (-1, -1), 0), ("TOPPADDING", (0, 0), (-1, -1), 1)]))
    return table


def _lines(document: Document) -> Table:
    currency = document.invoice.currency
    rows = [
        [_text(name, 8, _MUTED, right=i > 0) for i, name in enumerate(["", "Quantity", "Price", "Amount"])]
    ]
    rules = []
    for line, parts in document.lines:
        rules.append(("LINEABOVE", (0, len(rows)), (-1, len(rows)), 0.5, _RULE))
        when = f"{_day(line.started_at)} to {_day(line.ended_at)}"
        times = "× " if line.unit[:1].isdigit() else ""
        late = "Late usage of an earlier period, " if line.late else ""
        rows.append(
            [
                [_text(line.title, 9.5), _text(f"{late}{when}", 7.5, _MUTED)],
                _text(f"{_short(line.natural_quantity)} {times}{line.unit}", 9, right=True),
                _text(_price(line.unit_price, currency), 9, right=True),
                _text(money.text(line.amount, currency), 9.5, right=True),
            ]
        )
        for part in parts:
            rows.append(
                [
                    _text(f"{part.subject_title}  {part.subject}", 7.5, _MUTED),
                    _text(_short(money.EXACT.divide(part.quantity, line.unit_size)), 7.5, _MUTED, right=True),
                    "",
                    _text(_short(part.exact), 7.5, _MUTED, right=True),
                ]
            )
    table = Table(rows, colWidths=[80 * mm, 40 * mm, 20 * mm, 25 * mm], repeatRows=1)
    padding = [
        (f"{side}PADDING", (0, 0), (-1, -1), size) for side, size in (("LEFT", 0), ("RIGHT", 0), ("TOP", 2))
    ]
    table.setStyle(TableStyle([*padding, ("VALIGN", (0, 0), (-1, -1), "TOP"), *rules]))
    return table


def _text(
    text: str, size: float, colour: colors.Color = _INK, *, right: bool = False, space: float = 0
) -> Paragraph:
    """A paragraph in the font that has its letters."""
    western = all(ord(letter) < 0x250 for letter in text)
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
    return Paragraph(escape(text), style)


def _short(quantity: Decimal) -> str:
    """A natural quantity with at most six digits after the point; the page has no room for more."""
    return money.plain(round(quantity, 6))


def _price(price: Decimal, currency: str) -> str:
    """A price with the currency's places, or more where it has more."""
    rounded = money.text(price, currency)
    return rounded if Decimal(rounded) == price else money.plain(price)


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
