"""Alerts of an endpoint: list, make, show the secret once, remove."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from jobs.forms_alerts import AlertForm
from jobs.models import AlertEvent, AlertRule, Endpoint
from jobs.services import alerts as service
from jobs.specs_alerts import AlertSpec
from tenants.errors import Refused
from tenants.forms import add_faults
from tenants.http import Request
from tenants.permissions import allowed, require

SHOWN = 50


@never_cache
def endpoint_alerts(request: Request, public_id: str) -> HttpResponse:
    rows = Endpoint.objects.visible_to(request.actor).select_related("tenant", "current__version")
    endpoint = get_object_or_404(rows, public_id=public_id)
    if request.method != "POST":
        return _page(request, endpoint, AlertForm(endpoint))
    require(request.actor, "endpoints.publish", endpoint)
    form = AlertForm(endpoint, request.POST)
    if form.is_valid():
        try:
            rule, secret = service.create_rule(request.actor, endpoint, AlertSpec.parse(form.spec()))
        except Refused as refusal:
            if refusal.status in (403, 404):
                raise
            add_faults(form, refusal)
        else:
            return _page(request, endpoint, AlertForm(endpoint), status=201, made=rule, secret=secret)
    return _page(request, endpoint, form, status=422)


@require_POST
def endpoint_alert_remove(request: Request, public_id: str, alert: str) -> HttpResponse:
    rows = AlertRule.objects.visible_to(request.actor).select_related("endpoint__tenant")
    rule = get_object_or_404(rows, public_id=alert, endpoint__public_id=public_id)
    service.delete_rule(request.actor, rule)
    messages.success(request, _("The alert “%(name)s” is removed.") % {"name": rule.name})
    return redirect("jobs:endpoint_alerts", public_id)


def _page(
    request: Request, endpoint: Endpoint, form: AlertForm, *, status: int = 200, **more: Any
) -> HttpResponse:
    context = {
        "endpoint": endpoint,
        "form": form,
        "rules": list(endpoint.alert_rules.all()),
        "events": list(AlertEvent.objects.filter(rule__endpoint=endpoint).select_related("rule")[:SHOWN]),
        "may_publish": allowed(request.actor, "endpoints.publish", endpoint),
        **more,
    }
    return render(request, "jobs/endpoints/alerts.html", context, status=status)
