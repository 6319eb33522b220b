"""Finance: everybody's for staff under /reports/, the same pages for a tenant under /usage/."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing import clock, csvs, money
from billing.months import Month
from billing.services import finance, notes
from billing.services.finance import BUCKETS, Finance
from billing.views.reports import address, report_page, scope_of, tabs
from tenants.errors import Invalid
from tenants.http import Request

BUCKET_LABELS = {
    "not_due": gettext_lazy("Not due yet"),
    "d30": gettext_lazy("1–30 days"),
    "d60": gettext_lazy("31–60 days"),
    "d90": gettext_lazy("61–90 days"),
    "older": gettext_lazy("More than 90 days"),
}
BUCKET_TONES = {"not_due": "ok", "d30": "warn", "d60": "warn", "d90": "bad", "older": "bad"}
REGISTER = [
    "number", "kind", "tenant", "tenant_name", "issued", "due", "period_start", "period_end", "status", "currency",
    "net", "tax", "total", "credit", "left", "overdue_days", "content_hash", "reason", "issued_by",
]  # fmt: skip


@report_page
def finances(request: Request, *, platform: bool) -> HttpResponse:
    scope = scope_of(request, platform=platform, permission="invoices.view")
    start, end = _window(request)
    found = finance.finance(scope, start, end)
    _name_issuers(found, platform)
    kept = {key: request.GET.get(key, "") for key in ("tenant", "currency") if request.GET.get(key)}
    context = {
        "platform": platform,
        "tabs": tabs(request, platform=platform),
        "found": found,
        "last_day": end - timedelta(days=1),
        "start": start,
        "end": end,
        "aging": _aging(found),
        "aging_chart": {
            "labels": [str(BUCKET_LABELS[name]) for name in BUCKETS],
            "series": [{"name": _("Unpaid"), "values": [found.aging[name][1] for name in BUCKETS]}],
            "unit": found.currency,
        },
        "presets": _presets(start, end, kept),
        "kept": kept,
        "csv_url": f"{address('finance_csv', platform)}?{urlencode({'start': start, 'end': end, **kept})}",
        "elsewhere": [
            {"currency": code, "url": "?" + urlencode({**kept, "start": start, "end": end, "currency": code})}
            for code in found.elsewhere
        ],
    }
    return render(request, "billing/reports/finance.html", context)


@report_page
def finances_csv(request: Request, *, platform: bool) -> StreamingHttpResponse:
    """The register: invoices, then credit notes with their amounts below zero."""
    scope = scope_of(request, platform=platform, permission="invoices.view")
    start, end = _window(request)
    found = finance.finance(scope, start, end)
    _name_issuers(found, platform)

    def rows() -> Any:
        for one in found.invoices:
            invoice = one.invoice
            yield [
                invoice.number, invoice.kind, invoice.buyer_id, invoice.buyer_name, invoice.finalized_at,
                invoice.due_at, invoice.period_start, invoice.period_end, invoice.status, invoice.currency,
                invoice.net, invoice.tax_total, invoice.total, invoice.credit_total, one.left, one.overdue_days,
                invoice.content_hash, "", "",
            ]  # fmt: skip
        for note in found.notes:
            yield [
                note.number, "credit_note", note.invoice.buyer_id, note.invoice.buyer_name, note.issued_at, None,
                note.invoice.period_start, note.invoice.period_end, "issued", note.currency, -note.net,
                -note.tax_total, -note.total, None, None, None, note.content_hash, note.reason, note.issuer,
            ]  # fmt: skip

    return csvs.response(request, f"register-{start}-{end}.csv", REGISTER, rows())


def _name_issuers(found: Finance, platform: bool) -> None:
    """Say with each credit note who issued it; to staff alone."""
    known = notes.issuers(found.notes) if platform and found.notes else {}
    for note in found.notes:
        note.issuer = known.get(note.public_id, "")


def _window(request: Request) -> tuple[date, date]:
    """The days of the query; this calendar year so far where it says nothing."""
    today = clock.now().date()
    try:
        start = date.fromisoformat(request.GET.get("start") or f"{today.year}-01-01")
        end = date.fromisoformat(request.GET.get("end") or (today + timedelta(days=1)).isoformat())
    except ValueError:
        raise Invalid.at("/start", "invalid", _("Write days as 2026-11-01.")) from None
    if not date(2000, 1, 1) <= start < end <= date(9000, 1, 1):
        raise Invalid.at("/end", "order", _("The end lies after the start; the last day itself is not part."))
    return start, end


def _aging(found: Finance) -> list[dict[str, Any]]:
    most: Decimal = max((amount for _count, amount in found.aging.values()), default=money.ZERO)
    return [
        {
            "label": BUCKET_LABELS[name],
            "tone": BUCKET_TONES[name],
            "count": found.aging[name][0],
            "amount": found.aging[name][1],
            "most": most,
        }
        for name in BUCKETS
    ]


def _presets(start: date, end: date, kept: dict[str, str]) -> list[dict[str, Any]]:
    today = clock.now().date()
    month, tomorrow = Month.of(today), today + timedelta(days=1)
    spans = [
        (_("This month"), month.first, tomorrow),
        (_("Last month"), month.previous.first, month.first),
        (_("This year"), date(today.year, 1, 1), tomorrow),
        (_("Last year"), date(today.year - 1, 1, 1), date(today.year, 1, 1)),
    ]
    return [
        {
            "label": label,
            "query": urlencode({"start": first, "end": after, **kept}),
            "current": (first, after) == (start, end),
        }
        for label, first, after in spans
    ]
