"""Who did what: the append-only log of the tenant."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from tenants.forms import AuditFilter
from tenants.http import Request
from tenants.models import AuditEntry
from tenants.permissions import require
from tenants.sheets import csv_response
from tenants.views.common import needs_tenant

MOST_CSV_ROWS = 50_000


@needs_tenant
def audit_list(request: Request) -> HttpResponse:
    require(request.actor, "audit.view")
    form, entries = _filtered(request)
    page = Paginator(entries, 50).get_page(request.GET.get("page"))
    context = {
        "form": form,
        "page_obj": page,
        "rows": [(entry, _readable(entry.details)) for entry in page.object_list],
        "query": _query(form),
        "filtered": bool(_query(form)),
    }
    return render(request, "tenants/audit/list.html", context)


@needs_tenant
def audit_csv(request: Request) -> HttpResponse:
    require(request.actor, "audit.view")
    _unused, entries = _filtered(request)
    header = [
        "at",
        "actor_kind",
        "actor",
        "action",
        "target_type",
        "target_id",
        "target",
        "details",
        "request_id",
        "address",
    ]
    rows = (
        [
            entry.at.isoformat(), entry.actor_kind, entry.actor_label, entry.action, entry.target_type,
            entry.target_id, entry.target_label, json.dumps(entry.details, ensure_ascii=False),
            entry.request_id, entry.address,
        ]
        for entry in entries[:MOST_CSV_ROWS]
    )  # fmt: skip
    return csv_response(f"audit-{request.actor.the_tenant.slug}.csv", header, rows)


def _filtered(request: Request) -> tuple[AuditFilter, Any]:
    seen = AuditEntry.objects.visible_to(request.actor)
    actions = list(seen.order_by("action").values_list("action", flat=True).distinct())
    form = AuditFilter(actions, request.GET or None)
    entries = seen.order_by("-at", "-pk")
    # an unknown action in an old link filters nothing out but says so at the field
    if form.is_bound and form.is_valid():
        if action := form.cleaned_data["action"]:
            entries = entries.filter(action=action)
        if who := form.cleaned_data["actor"].strip():
            entries = entries.filter(actor_label__icontains=who)
    return form, entries


def _readable(details: dict[str, Any]) -> list[tuple[str, str]]:
    """Details as people read them: "scopes jobs:read, jobs:write", never a Python list."""
    return [(name.replace("_", " "), _words(value)) for name, value in details.items()]


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return str(_("yes")) if value else str(_("no"))
    if isinstance(value, list):
        return ", ".join(_words(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items())
    return str(value)


def _query(form: AuditFilter) -> str:
    if not form.is_bound or not form.is_valid():
        return ""
    chosen = {name: value for name, value in form.cleaned_data.items() if value}
    return urlencode(chosen) + "&" if chosen else ""
