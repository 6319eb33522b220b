"""Pages of endpoints: list, publish, try, revisions, sharing, settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from billing.services import reports
from jobs import routes, snippets
from jobs.forms_datasets import ShareForm
from jobs.forms_endpoints import (
    EndpointForm,
    EndpointSettingsForm,
    RevisionForm,
    TryForm,
)
from jobs.forms_traffic import GuardForm
from jobs.models import Endpoint, ModelVersion, Replica, Revision
from jobs.services import endpoints as service
from jobs.services import traffic, tries, usage
from jobs.specs_endpoints import EndpointChange, EndpointSpec, parse_version
from jobs.states import EndpointStatus, ReplicaStatus
from jobs.views.sharing import share_context, share_with, unshare_from
from tenants.errors import Refused
from tenants.forms import add_faults
from tenants.http import Request
from tenants.permissions import allowed, require
from tenants.views.common import needs_something_to_see, needs_tenant

TABS = ("try", "revisions", "settings")
_PAGES = {"keys", "traffic", "alerts", "drift", "requests"}  # tabs that are pages of their own


@needs_something_to_see(Endpoint)
@require_GET
def endpoint_list(request: Request) -> HttpResponse:
    seen = Endpoint.objects.visible_to(request.actor)
    if not seen.exists():
        require(request.actor, "endpoints.view")
    rows = seen.select_related("tenant", "current__version__model").order_by("-status_at", "-pk")
    page = Paginator(rows, 25).get_page(request.GET.get("page"))
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    counts = usage.requests_of(page.object_list, today)
    usable = ModelVersion.objects.visible_to(request.actor).in_use()
    newest = usable.filter(tenant=request.actor.tenant, is_chosen=True)
    latest = newest.order_by("-created_at").first()
    context = {
        "page_obj": page,
        "rows": [(endpoint, counts.get(endpoint.public_id, 0)) for endpoint in page],
        "may_publish": request.actor.may("endpoints.publish"),
        "has_version": latest is not None,
        "snippet": _snippet(request, latest) if latest else "",
    }
    return render(request, "jobs/endpoints/list.html", context)


@needs_tenant
def endpoint_new(request: Request) -> HttpResponse:
    require(request.actor, "endpoints.publish")
    if request.method != "POST":
        initial = {"version": request.GET.get("version", "")}
        return _new_page(request, EndpointForm(request.actor, initial=initial))
    form = EndpointForm(request.actor, request.POST)
    if form.is_valid():
        try:
            spec = EndpointSpec.parse(request.actor, form.spec())
            endpoint = service.publish_endpoint(
                request.actor,
                name=spec.name,
                slug=spec.slug,
                version=spec.version,
                is_public=spec.is_public,
                requests_per_minute=spec.requests_per_minute,
            )
        except Refused as refusal:
            add_faults(form, refusal)
            return _new_page(request, form, status=refusal.status)
        messages.success(request, _("“%(name)s” is on its way.") % {"name": endpoint.name})
        return redirect(endpoint)
    return _new_page(request, form, status=422)


@require_GET
def endpoint_detail(request: Request, public_id: str) -> HttpResponse:
    return _page(request, _endpoint(request, public_id), tab=request.GET.get("tab", "try"))


@require_GET
def endpoint_status(request: Request, public_id: str) -> HttpResponse:
    """The badge, asked for while it starts; the page is drawn anew when that is over."""
    endpoint = _endpoint(request, public_id)
    response = render(request, "jobs/endpoints/_status.html", {"endpoint": endpoint})
    if endpoint.status != EndpointStatus.STARTING:
        response["HX-Refresh"] = "true"
    return response


@require_POST
def endpoint_try(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.invoke", endpoint)
    form = TryForm(_interface(endpoint), request.POST)
    context: dict[str, Any] = {}
    status = 200
    if form.is_valid():
        try:
            context["tried"] = tries.try_endpoint(
                request.actor, endpoint, form.body(), request_id=request.request_id
            )
        except Refused as refusal:
            context["refusal"] = refusal
            status = 422 if refusal.status == 422 else 200
            for fault in refusal.faults:
                form.add_error(form.field_at(fault.pointer), fault.detail)
    else:
        status = 422
    if request.headers.get("HX-Request") == "true":
        context |= _playground(endpoint, form)
        return render(request, "jobs/endpoints/_answer.html", context, status=status)
    return _page(request, endpoint, tab="try", form=form, status=status, **context)


@require_POST
def endpoint_revise(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.publish", endpoint)
    try:
        version = parse_version(request.actor, {"version": request.POST.get("version", "")})
        service.revise_endpoint(request.actor, endpoint, version)
    except Refused as refusal:
        messages.error(request, refusal.detail)
        return _page(request, endpoint, tab="revisions", status=refusal.status)
    text = _("%(version)s is being started. What answers now goes on until it is ready.")
    messages.success(request, text % {"version": version})
    return redirect(f"{endpoint.get_absolute_url()}?tab=revisions")


@require_POST
def endpoint_settings(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    require(request.actor, "endpoints.publish", endpoint)
    form = EndpointSettingsForm(request.POST)
    if form.is_valid():
        try:
            service.change_endpoint(request.actor, endpoint, EndpointChange.parse(form.cleaned_data))
        except Refused as refusal:
            add_faults(form, refusal)
        else:
            messages.success(request, _("Saved. Gateways follow within a second."))
            return redirect(f"{endpoint.get_absolute_url()}?tab=settings")
    return _page(request, endpoint, tab="settings", settings_form=form, status=422)


@require_POST
def endpoint_share(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    form = share_with(request, endpoint)
    if form is None:
        return redirect(endpoint)
    return _page(request, endpoint, tab="try", share_form=form, status=422)


@require_POST
def endpoint_unshare(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    unshare_from(request, endpoint)
    return redirect(endpoint)


@require_POST
def endpoint_stop(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    service.stop_endpoint(request.actor, endpoint)
    messages.success(request, _("“%(name)s” is stopped and costs nothing more.") % {"name": endpoint.name})
    return redirect(endpoint)


@require_POST
def endpoint_start(request: Request, public_id: str) -> HttpResponse:
    endpoint = _endpoint(request, public_id)
    try:
        service.start_endpoint(request.actor, endpoint)
    except Refused as refusal:
        if refusal.status in (403, 404):
            raise
        messages.error(request, refusal.detail)
        return _page(request, endpoint, tab="try", status=refusal.status)
    return redirect(endpoint)


def _endpoint(request: Request, public_id: str) -> Endpoint:
    rows = Endpoint.objects.visible_to(request.actor)
    rows = rows.select_related(
        "tenant", "current__version__model", "created_by", "canary__version__model",
        "shadow__version__model", "previous",
    )  # fmt: skip
    return get_object_or_404(rows, public_id=public_id)


def _new_page(request: Request, form: EndpointForm, status: int = 200) -> HttpResponse:
    field: Any = form.fields["version"]
    context = {"form": form, "has_version": bool(field.choices)}
    return render(request, "jobs/endpoints/new.html", context, status=status)


def _page(
    request: Request, endpoint: Endpoint, *, tab: str, status: int = 200, form: TryForm | None = None,
    share_form: ShareForm | None = None, settings_form: EndpointSettingsForm | None = None,
    **more: Any,
) -> HttpResponse:  # fmt: skip
    actor = request.actor
    may = {verb: allowed(actor, f"endpoints.{verb}", endpoint) for verb in ("publish", "invoke", "stop")}
    is_guest = actor.tenant is None or endpoint.tenant_id != actor.tenant.pk
    here = endpoint.get_absolute_url()
    tabs = [
        {"key": "try", "label": _("Try it"), "url": here, "icon": "play"},
        {"key": "revisions", "label": _("Revisions"), "url": f"{here}?tab=revisions", "icon": "history"},
        {
            "key": "traffic",
            "label": _("Traffic"),
            "url": reverse("jobs:endpoint_traffic", args=[endpoint.public_id]),
            "icon": "activity",
        },
        {
            "key": "drift",
            "label": _("Drift"),
            "url": reverse("jobs:endpoint_drift", args=[endpoint.public_id]),
            "icon": "scale",
        },
        {
            "key": "alerts",
            "label": _("Alerts"),
            "url": reverse("jobs:endpoint_alerts", args=[endpoint.public_id]),
            "icon": "bell",
        },
    ]
    if may["publish"]:
        keys_url = reverse("jobs:endpoint_keys", args=[endpoint.public_id])
        log_url = reverse("jobs:endpoint_requests", args=[endpoint.public_id])
        tabs.append({"key": "requests", "label": _("Requests"), "url": log_url, "icon": "list"})
        tabs.append({"key": "keys", "label": _("Keys"), "url": keys_url, "icon": "key-round"})
        tabs.append(
            {"key": "settings", "label": _("Settings"), "url": f"{here}?tab=settings", "icon": "settings"}
        )
    tab = tab if tab in {one["key"] for one in tabs} - _PAGES else "try"
    context = {
        "endpoint": endpoint,
        "may": may,
        "is_guest": is_guest,
        "serving": _serving(endpoint),
        "tabs": tabs,
        "tab": tab,
        **_numbers(endpoint, with_cost=actor.may("usage.view") and not is_guest),
        **share_context(request, endpoint, share_form),
        **more,
    }
    if tab == "try":
        context |= _playground(endpoint, form or TryForm(_interface(endpoint)))
    elif tab == "revisions":
        context |= _history(request, endpoint)
    else:
        initial = {name: getattr(endpoint, name) for name in EndpointSettingsForm.base_fields}
        context["settings_form"] = settings_form or EndpointSettingsForm(initial=initial)
    return render(request, "jobs/endpoints/detail.html", context, status=status)


def _numbers(endpoint: Endpoint, *, with_cost: bool) -> dict[str, Any]:
    now = timezone.now()
    by_minute = usage.requests_by_minute(endpoint)
    ready = Replica.objects.filter(revision__endpoint=endpoint, status=ReplicaStatus.READY)
    # canary and shadow stand beside what is wanted
    beside = [pk for pk in (endpoint.canary_id, endpoint.shadow_id) if pk is not None]
    ready = ready.exclude(revision__in=beside)
    return {
        "today": usage.requests_since(endpoint, now.replace(hour=0, minute=0, second=0, microsecond=0)),
        "last_hour": usage.requests_since(endpoint, now - timedelta(hours=1)),
        "by_minute": by_minute if any(by_minute) else None,
        "ready": ready.count(),
        "cost": reports.cost_of(endpoint.tenant, endpoint.public_id) if with_cost else None,
    }


def _interface(endpoint: Endpoint) -> dict[str, Any]:
    """Of the revision that answers now, so that the form fits it while a new one is still starting."""
    serving = _serving(endpoint)
    return serving.version.interface if serving else {}


def _serving(endpoint: Endpoint) -> Revision | None:
    rows = Replica.objects.filter(revision__endpoint=endpoint, status=ReplicaStatus.READY)
    return routes.serving(endpoint, list(rows.select_related("revision__version__model")))


def _playground(endpoint: Endpoint, form: TryForm) -> dict[str, Any]:
    """The form and the same call in other words: with what was sent, else with the model's own sample."""
    sent = form
    if not (form.is_bound and form.is_valid()):
        sent = TryForm(_interface(endpoint), {name: field.initial for name, field in form.fields.items()})
        sent.is_valid()
    body = sent.body() if not sent.errors else {"inputs": []}
    return {
        "endpoint": endpoint,
        "form": form,
        "curl": snippets.curl(endpoint, body),
        "python": snippets.python(endpoint, body),
    }


def _history(request: Request, endpoint: Endpoint) -> dict[str, Any]:
    rows: QuerySet[Revision] = endpoint.revisions.select_related("version__model", "created_by", "tenant")
    seen = set(
        ModelVersion.objects.visible_to(request.actor)
        .filter(revisions__endpoint=endpoint)
        .values_list("pk", flat=True)
    )
    ready = Replica.objects.filter(revision__endpoint=endpoint, status=ReplicaStatus.READY)
    answering = {replica.revision_id for replica in ready}
    return {
        "revisions": [
            {
                "row": one,
                "answers": one.pk in answering,
                "sees_version": one.version_id in seen,
                "is_archived": one.version.shelved_at is not None,
            }
            for one in rows[:50]
        ],
        "revision_form": RevisionForm(request.actor, endpoint),
        "legs": traffic.legs(endpoint),
        "guard_form": GuardForm.of(endpoint),
        "guard_percent": f"{endpoint.guard_error_share * 100:g}",
        "canary_percent": f"{endpoint.canary_share / 100:g}",
    }


def _snippet(request: Request, version: ModelVersion) -> str:
    address = request.build_absolute_uri(reverse("api:endpoint-list"))
    body = f'{{"name": "{version.model.name}", "version": "{version.public_id}"}}'
    lines = (
        f"curl -s {address}",
        '-H "Authorization: Bearer $TAUON_TOKEN"',
        '-H "Content-Type: application/json"',
        f"-d '{body}'",
    )
    return " \\\n  ".join(lines)
