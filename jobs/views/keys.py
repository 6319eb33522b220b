"""Keys of an endpoint: list, make, show once, revoke."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from jobs.forms_keys import EndpointKeyForm
from jobs.models import Endpoint, EndpointKey
from jobs.services import keys as service
from tenants.errors import Refused
from tenants.forms import add_faults
from tenants.http import Request
from tenants.permissions import require

SHOWN = 200


@never_cache
def endpoint_keys(request: Request, public_id: str) -> HttpResponse:
    rows = Endpoint.objects.visible_to(request.actor).select_related("tenant")
    endpoint = get_object_or_404(rows, public_id=public_id)
    require(request.actor, "endpoints.publish", endpoint)
    if request.method != "POST":
        return _page(request, endpoint, EndpointKeyForm())
    form = EndpointKeyForm(request.POST)
    if form.is_valid():
        try:
            key, plain = service.create_key(request.actor, endpoint, **form.cleaned_data)
        except Refused as refusal:
            if refusal.status in (403, 404):
                raise
            add_faults(form, refusal)
        else:
            return _page(
                request, endpoint, EndpointKeyForm(), status=201, made=key, **_shown_once(endpoint, plain)
            )
    return _page(request, endpoint, form, status=422)


@require_POST
def endpoint_key_revoke(request: Request, public_id: str, key: str) -> HttpResponse:
    rows = EndpointKey.objects.visible_to(request.actor).select_related("endpoint__tenant", "token__tenant")
    found = get_object_or_404(rows, public_id=key, endpoint__public_id=public_id)
    service.revoke_key(request.actor, found)
    messages.success(request, _("%(key)s was revoked and answers no more.") % {"key": found.token.name})
    return redirect("jobs:endpoint_keys", public_id)


def _page(
    request: Request, endpoint: Endpoint, form: EndpointKeyForm, *, status: int = 200, **more: Any
) -> HttpResponse:
    keys = list(EndpointKey.objects.filter(endpoint=endpoint).select_related("token__created_by")[:SHOWN])
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    counts = service.requests_by_key(endpoint, keys, today)
    for key in keys:
        key.today = counts.get(key.token.public_id, 0)  # type: ignore[attr-defined]
    context = {
        "endpoint": endpoint,
        "form": form,
        "active": [key for key in keys if key.token.is_usable],
        "ended": [key for key in keys if not key.token.is_usable],
        **more,
    }
    return render(request, "jobs/endpoints/keys.html", context, status=status)


def _shown_once(endpoint: Endpoint, plain: str) -> dict[str, str]:
    lines = (
        f"curl -s {endpoint.base_url}/openapi.json",
        f'-H "Authorization: Bearer {plain}"',
    )
    return {"plain": plain, "curl": " \\\n  ".join(lines)}
