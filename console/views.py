"""Overview, search, the living style page, health, and error pages."""

from __future__ import annotations

import logging
from typing import Any

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.utils import timezone
from django.utils.translation import gettext as _

from console import overview as read
from console import search as palette
from console import showcase
from console.api import problem
from console.context import link
from tenants.actor import ActorKind
from tenants.error_codes import GROUPS
from tenants.http import Request

log = logging.getLogger(__name__)


def overview(request: Request) -> HttpResponse:
    """The first page; somebody without a tenant sees what was shared with them, or is taken to make one."""
    actor = request.actor
    if actor.tenant is None:
        if kinds := read.shared(actor):
            return render(request, "console/shared.html", {"kinds": kinds})
        return redirect("tenants:tenant_new")
    steps = read.checklist(actor)
    done = sum(step["done"] for step in steps)
    if done == 0 and actor.may("jobs.submit"):
        snippet = f'curl {settings.BASE_URL}/api/v1/datasets \\\n  -H "Authorization: Bearer $TAUON_TOKEN"'
        return render(request, "console/welcome.html", {"steps": steps, "snippet": snippet})
    context = {
        **read.moving(actor),
        "audit_url": link("tenants:audit_list") if actor.may("audit.view") else "",
        "activity": read.activity(actor),
        "steps": steps,
        "steps_done": done,
        "steps_left": len(steps) - done,
    }
    return render(request, "console/overview.html", context)


def overview_live(request: Request) -> HttpResponse:
    """The moving part of the overview, asked for again every few seconds."""
    actor = request.actor
    if actor.tenant is None:
        return HttpResponse(status=204)
    return render(request, "console/_moving.html", {**read.moving(actor), "again": True})


def search(request: Request) -> HttpResponse:
    """Hits for the palette; a whole page where there is no script."""
    text = request.GET.get("q", "")
    context = {"q": text, "groups": palette.results(request.actor, text)}
    return render(request, "console/_hits.html" if request.htmx else "console/search.html", context)


def style(request: Request) -> HttpResponse:
    """Every component, alive; only while TAUON_DEBUG is on."""
    if not (settings.DEBUG or settings.TESTING):
        raise Http404
    return render(request, "console/style.html", showcase.samples(request))


@login_not_required
def favicon(request: HttpRequest) -> HttpResponse:
    """Where browsers look for a picture without being told."""
    return redirect(static("img/favicon.svg"))


@login_not_required
def errors(request: Request) -> HttpResponse:
    """Every error code with what it means and what to do next: where the `type` of a problem points."""
    groups = [
        {"title": _(title), "codes": [(code, _(text)) for code, text in codes.items()]}
        for title, codes in GROUPS.items()
    ]
    signed_in = request.actor.kind is not ActorKind.NOBODY
    context = {"groups": groups, "layout": "base.html" if signed_in else "base_plain.html"}
    return render(request, "console/errors.html", context)


@login_not_required
def health_live(request: HttpRequest) -> HttpResponse:
    """This process answers."""
    return JsonResponse({"status": "ok"})


@login_not_required
def health_ready(request: HttpRequest) -> HttpResponse:
    """The database and Redis answer too; 503 names the one that does not."""
    checks: dict[str, Any] = {"database": _database_answers(), "redis": _redis_answers()}
    ready = all(checks.values())
    body = {
        "status": "ok" if ready else "unavailable",
        "checks": {name: "ok" if answers else "does not answer" for name, answers in checks.items()},
        "at": timezone.now().isoformat(),
    }
    return JsonResponse(body, status=200 if ready else 503)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
        return True
    except DatabaseError:
        log.warning("the database does not answer")
        return False


def _redis_answers() -> bool:
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        log.warning("redis does not answer")
        return False


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig):
        return _broken(request, 413, "too_large", _("The upload is larger than allowed."))
    return _broken(request, 400, "invalid", _("The request is not valid."))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _broken(request, 403, "forbidden", _("You may not do this."))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _broken(request, 404, "not_found", _("There is nothing here, or you may not see it."))


def server_error(request: HttpRequest) -> HttpResponse:
    return _broken(request, 500, "internal_error", _("Something broke on our side"))


def _broken(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    """A page for people, problem+json for programs: what reads JSON must not meet HTML when it hurts most."""
    if request.path.startswith("/api/"):
        return problem(request, status, code, detail)
    return render(request, f"{status if status != 413 else 400}.html", status=status)
