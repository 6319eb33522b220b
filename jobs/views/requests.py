"""The request log of an endpoint: settings, list, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from billing import csvs
from jobs.forms_requests import RequestFilter, RequestLogForm
from jobs.models import Endpoint
from jobs.services import endpoints as endpoint_service
from jobs.services import requests as service
from jobs.services.requests import Entry, Wanted
from jobs.specs_endpoints import EndpointChange
from jobs.streams import send_lines
from tenants.errors import Refused
from tenants.forms import add_faults
from tenants.http import Request
from tenants.permissions import require

PAGE_ROWS = 50
COLUMNS = ("at", "request_id", "status", "latency_ms", "revision", "key", "rows", "label", "input", "output")


@never_cache
def endpoint_requests(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.publish", endpoint)
    if request.method != "POST":
        return _page(request, endpoint, RequestLogForm.of(endpoint))
    form = RequestLogForm(request.POST)
    if form.is_valid():
        try:
            change = EndpointChange.parse(form.change())
            changed = endpoint_service.change_endpoint(request.actor, endpoint, change)
        except Refused as refusal:
            if refusal.status in (403, 404):
                raise
            add_faults(form, refusal)
        else:
            on = _("Saved. Requests are kept from now on; gateways follow within a second.")
            off = _("Saved. No request is kept from now on; those in the log stay until their days are over.")
            messages.success(request, on if changed.log_percent else off)
            return redirect("jobs:endpoint_requests", public_id)
    return _page(request, endpoint, form, status=422)


@never_cache
@require_GET
def endpoint_requests_export(request: Request, public_id: str) -> StreamingHttpResponse:
    """`?format=csv` or `jsonl`, with the filters of the page."""
    endpoint = _endpoint(request, public_id)
    kind = "csv" if request.GET.get("format") == "csv" else "jsonl"
    found = service.export_requests(request.actor, endpoint, Wanted.read(request.GET), format=kind)
    name = f"requests-{endpoint.slug}.{kind}"
    if kind == "csv":
        pieces = csvs.lines(COLUMNS, (_cells(one) for one in found))
        return send_lines(request, pieces, name=name, content_type="text/csv; charset=utf-8")
    return send_lines(request, _json_lines(found), name=name, content_type="application/jsonl; charset=utf-8")


def _json_lines(found: Iterator[Entry]) -> Iterator[str]:
    for one in found:
        yield json.dumps(one.as_json(), ensure_ascii=False) + "\n"


def _cells(one: Entry) -> list[Any]:
    told = one.as_json()
    told["latency_ms"] = f"{one.ms:.3f}"
    for name in ("input", "output"):
        told[name] = json.dumps(told[name], ensure_ascii=False) if told[name] is not None else ""
    return [told[name] for name in COLUMNS]


def _endpoint(request: Request, public_id: str) -> Endpoint:
    rows = Endpoint.objects.visible_to(request.actor).select_related("tenant", "current__version")
    return get_object_or_404(rows, public_id=public_id)


def _page(request: Request, endpoint: Endpoint, form: RequestLogForm, *, status: int = 200) -> HttpResponse:
    wanted = Wanted.read(request.GET)
    rows = service.read_requests(request.actor, endpoint, wanted)
    page = Paginator(rows, PAGE_ROWS).get_page(request.GET.get("page"))
    names = [str(one.get("name", "")) for one in _inputs(endpoint)]
    asked = {"status": wanted.status, "label": wanted.label, "token": wanted.token}
    query = urlencode({name: value for name, value in asked.items() if value})
    context = {
        "endpoint": endpoint,
        "form": form,
        "filter": RequestFilter(service.labels_of(endpoint), initial=asked),
        "filtered": bool(query),
        "query": f"{query}&" if query else "",
        "page_obj": page,
        "entries": service.entries(endpoint.tenant, list(page.object_list)),
        "lost": service.lost_since(endpoint, timezone.now() - timedelta(days=1)),
        "percent": f"{endpoint.log_percent:g}",
        "hidden": endpoint.log_masks,
        "input_names": names,
    }
    return render(request, "jobs/endpoints/requests.html", context, status=status)


def _inputs(endpoint: Endpoint) -> list[dict[str, Any]]:
    return endpoint.current.version.interface.get("inputs", []) if endpoint.current else []
