"""Costs of the whole installation, for staff."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from billing import clock, csvs, money
from billing.forms import GROUP_LABELS, GROUP_TITLES, ReportForm
from billing.months import Month
from billing.services import costs, invoices
from tenants.errors import Invalid
from tenants.http import Request
from tenants.permissions import require


@require_GET
def report(request: Request) -> HttpResponse:
    require(request.actor, "platform.reports")
    form = ReportForm.of(request.GET)
    found = None
    if form.is_valid():
        try:
            found = costs.report(request.actor, **form.chosen)
        except Invalid as refusal:
            form.add_error("end", refusal.detail)
    context = {
        "form": form,
        "report": found,
        **(_around(found) if found else {}),
        "presets": _presets(form),
        "query": urlencode({key: value for key, value in form.data.items() if key in form.fields}),
        "invoices": invoices.readable_by(request.actor).select_related("tenant")[:12],
        "drafts": invoices.open_drafts(request.actor),
    }
    return render(request, "billing/reports/costs.html", context, status=200 if found else 422)


@require_GET
def report_csv(request: Request) -> StreamingHttpResponse:
    require(request.actor, "platform.reports")
    form = ReportForm.of(request.GET)
    if not form.is_valid():
        raise Invalid(" ".join(str(message) for errors in form.errors.values() for message in errors))
    found = costs.report(request.actor, **form.chosen)
    header = [found.group, "label", "tenant", "cost", "currency", "from", "to", "complete_through"]
    rows = (
        [
            row.key, row.label, row.tenant, row.cost, found.currency,
            found.start, found.end, found.complete_through,
        ]
        for row in found.rows
    )  # fmt: skip
    return csvs.response(request, f"costs-{found.start}-{found.end}-{found.group}.csv", header, rows)


def _around(found: costs.Report) -> dict[str, Any]:
    """What the page says about a report besides its rows."""
    days = (found.end - found.start).days
    return {
        "group_label": GROUP_LABELS[found.group],
        "group_title": GROUP_TITLES[found.group],
        "days": days,
        "last_day": found.end - timedelta(days=1),
        "average": money.EXACT.divide(found.total, days),
        "dearest": max(found.rows, key=lambda row: row.cost, default=None),
    }


def _presets(form: ReportForm) -> list[dict[str, Any]]:
    today = clock.now().date()
    month, tomorrow = Month.of(today), today + timedelta(days=1)
    spans = [
        (_("This month"), month.first, tomorrow),
        (_("Last month"), month.previous.first, month.first),
        (_("30 days"), tomorrow - timedelta(days=30), tomorrow),
        (_("12 months"), today.replace(year=today.year - 1, day=1), tomorrow),
    ]
    kept = {key: form.data[key] for key in ("by", "tenant", "meter") if form.data.get(key)}
    here = (form.data["start"], form.data["end"])
    return [
        {
            "label": label,
            "query": urlencode({"start": start, "end": end, **kept}),
            "current": here == (start.isoformat(), end.isoformat()),
        }
        for label, start, end in spans
    ]
