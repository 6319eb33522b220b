"""Prometheus metrics, for staff and for a scraper that holds TAUON_METRICS_TOKEN."""

from __future__ import annotations

import os
import secrets

from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django_prometheus import exports

from jobs.services import gauges
from tenants.errors import Hidden
from tenants.http import Request, bearer


@login_not_required
def metrics(request: Request) -> HttpResponse:
    """The numbers of this process and of all endpoints; 404 to everybody else, as they tell of all tenants."""
    wanted = os.environ.get("TAUON_METRICS_TOKEN", "")
    given = bearer(request.headers.get("Authorization", "")) or ""
    if not (request.actor.is_staff or (wanted and secrets.compare_digest(given.encode(), wanted.encode()))):
        raise Hidden
    response: HttpResponse = exports.ExportToDjangoView(request)
    response.content += gauges.exposition()
    return response
