"""Pages of how endpoints do: live charts, canary, shadow, rollback, workers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from jobs.forms_traffic import GuardForm, ScalingForm
from jobs.models import Endpoint
from jobs.services import endpoints as service
from jobs.services import revisions, traffic
from jobs.specs_endpoints import EndpointChange, RolloutSpec, parse_share
from tenants.errors import Refused
from tenants.forms import add_faults
from tenants.http import Request
from tenants.permissions import allowed, require


@require_GET
def endpoint_traffic(request: Request, public_id: str) -> HttpResponse:
    return _page(request, _endpoint(request, public_id))


@require_GET
def endpoint_traffic_now(request: Request, public_id: str) -> JsonResponse:
    """What the page asks for every few seconds: lines, and the tiles as HTML."""
    endpoint = _endpoint(request, public_id)
    context = _context(request, endpoint)
    return JsonResponse(
        {
            "charts": context["charts"],
            "now": render_to_string("jobs/endpoints/_now.html", context, request=request),
        }
    )


@require_POST
def endpoint_scaling(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.publish", endpoint)
    form = ScalingForm(request.POST)
    if form.is_valid():
        try:
            service.change_endpoint(request.actor, endpoint, EndpointChange.parse(form.change()))
        except Refused as refusal:
            add_faults(form, refusal)
        else:
            messages.success(request, _("Saved. The number of workers follows."))
            return redirect("jobs:endpoint_traffic", public_id)
    return _page(request, endpoint, status=422, scaling_form=form)


@require_POST
def endpoint_guard(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.publish", endpoint)
    form = GuardForm(request.POST)
    if form.is_valid():
        service.change_endpoint(request.actor, endpoint, EndpointChange.parse(form.change()))
        messages.success(request, _("Saved. The canary is judged by this from now on."))
        return redirect(_revisions_of(endpoint))
    messages.error(request, " ".join(str(error) for errors in form.errors.values() for error in errors))
    return redirect(_revisions_of(endpoint))


@require_POST
def endpoint_canary(request: Request, public_id: str) -> HttpResponse:
    """Begin one, or send it more or less."""
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.publish", endpoint)

    def act() -> str:
        if endpoint.canary is not None:
            share = parse_share({"percent": _percent(request)})
            changed = revisions.set_canary_share(request.actor, endpoint, share)
            return _("The canary gets %(share)s %% of the requests.") % {
                "share": _plain(changed.canary_share)
            }
        spec = _asked(request)
        revisions.start_canary(request.actor, endpoint, spec.version, share=spec.share)
        text = _("%(version)s is being started and then gets %(share)s %% of the requests.")
        return text % {"version": spec.version, "share": _plain(spec.share)}

    return _try(request, endpoint, act)


@require_POST
def endpoint_promote(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)

    def act() -> str:
        found = revisions.promote_canary(request.actor, endpoint)
        assert found.current is not None
        return _("Revision %(n)s answers everybody now.") % {"n": found.current.number}

    return _try(request, endpoint, act)


@require_POST
def endpoint_rollback(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)

    def act() -> str:
        found = revisions.roll_back(request.actor, endpoint)
        assert found.current is not None
        return _("Back to revision %(n)s.") % {"n": found.current.number}

    return _try(request, endpoint, act)


@require_POST
def endpoint_shadow(request: Request, public_id: str) -> HttpResponse:
    """Begin one; without a version, end it."""
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.publish", endpoint)

    def act() -> str:
        if endpoint.shadow is not None:
            revisions.stop_shadow(request.actor, endpoint)
            return _("The shadow is stopped.")
        spec = _asked(request)
        revisions.start_shadow(request.actor, endpoint, spec.version, share=spec.share)
        text = _("%(version)s is being started; it is asked the same and its answers are thrown away.")
        return text % {"version": spec.version}

    return _try(request, endpoint, act)


def _try(request: Request, endpoint: Endpoint, act: Any) -> HttpResponse:
    try:
        messages.success(request, act())
    except Refused as refusal:
        if refusal.status in (403, 404):
            raise
        messages.error(request, refusal.detail)
    return redirect(_revisions_of(endpoint))


def _revisions_of(endpoint: Endpoint) -> str:
    return f"{endpoint.get_absolute_url()}?tab=revisions"


def _asked(request: Request) -> RolloutSpec:
    """The version and the share that were posted; the share is never left out."""
    body = {"version": request.POST.get("version", ""), "percent": _percent(request)}
    return RolloutSpec.parse(request.actor, body, usual_percent=100)


def _percent(request: Request) -> float:
    """As it was sent; what is no number is out of every range."""
    try:
        return float(request.POST.get("percent", "-1").replace(",", "."))
    except ValueError:
        return -1.0


def _plain(share: int) -> str:
    return f"{share / 100:g}"


def _endpoint(request: Request, public_id: str) -> Endpoint:
    rows = Endpoint.objects.visible_to(request.actor)
    rows = rows.select_related(
        "tenant", "current__version__model", "canary__version__model", "shadow__version__model", "previous"
    )
    return get_object_or_404(rows, public_id=public_id)


def _context(request: Request, endpoint: Endpoint) -> dict[str, Any]:
    lines = traffic.charts(endpoint)
    words = {
        "in_flight": _("Running"),
        "waiting": _("Waiting"),
        "replicas": _("Workers"),
        "errors": _("Errors"),
        "refused": _("Refused"),
        "batch": _("Rows a batch"),
    }
    for name, series in lines.items():
        lines[name] = {_label(key, words): points for key, points in series.items()}
    return {
        "endpoint": endpoint,
        "last": traffic.lately(endpoint, window=timedelta(minutes=1)),
        "legs": traffic.legs(endpoint),
        "charts": lines,
        "may_publish": allowed(request.actor, "endpoints.publish", endpoint),
    }


def _label(key: str, words: dict[str, str]) -> str:
    if key[:1] == "r" and key[1:].isdigit():
        return _("Revision %(n)s") % {"n": key[1:]}
    return words.get(key, key)


def _page(
    request: Request, endpoint: Endpoint, *, status: int = 200, scaling_form: ScalingForm | None = None
) -> HttpResponse:
    context = _context(request, endpoint)
    if context["may_publish"]:
        context["scaling_form"] = scaling_form or ScalingForm.of(endpoint)
    return render(request, "jobs/endpoints/traffic.html", context, status=status)
