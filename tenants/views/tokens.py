"""API tokens: list, make, show once, revoke."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from tenants.errors import Invalid
from tenants.forms import TokenForm, add_faults
from tenants.http import Request
from tenants.models import ApiToken
from tenants.permissions import require
from tenants.services import tokens as service
from tenants.views.common import needs_tenant

# the first scope a token has decides which list its test call reads
_TRY = {
    "jobs:read": "jobs",
    "datasets:read": "datasets",
    "models:read": "models",
    "endpoints:read": "endpoints",
    "billing:read": "usage",
}


@needs_tenant
def token_list(request: Request) -> HttpResponse:
    require(request.actor, "tokens.view")
    tokens = list(
        ApiToken.objects.managed_by(request.actor)
        .select_related("created_by")
        .order_by("revoked_at", "-created_at")[:500]
    )
    context = {
        "active": [token for token in tokens if token.is_usable],
        "ended": [token for token in tokens if not token.is_usable],
        "sees_all": request.actor.may("tokens.manage"),
        "may_create": request.actor.may("tokens.create"),
        "soon": timezone.now() + timedelta(days=7),
    }
    return render(request, "tenants/tokens/list.html", context)


@needs_tenant
@never_cache
def token_new(request: Request) -> HttpResponse:
    require(request.actor, "tokens.create")
    form = TokenForm(request.actor, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            token, plain = service.create_token(request.actor, **form.cleaned_data)
        except Invalid as refusal:
            add_faults(form, refusal)
        else:
            return render(request, "tenants/tokens/made.html", _shown_once(token, plain), status=201)
    return render(request, "tenants/tokens/new.html", {"form": form}, status=422 if form.errors else 200)


@needs_tenant
@require_POST
def token_revoke(request: Request, public_id: str) -> HttpResponse:
    token = get_object_or_404(ApiToken.objects.visible_to(request.actor), public_id=public_id)
    service.revoke_token(request.actor, token)
    messages.success(request, _("%(token)s was revoked and answers no more.") % {"token": token.name})
    return redirect("tenants:token_list")


def _shown_once(token: ApiToken, plain: str) -> dict[str, object]:
    route = next((_TRY[scope] for scope in token.scopes if scope in _TRY), "tenants")
    curl = f'curl -H "Authorization: Bearer $TAUON_TOKEN" {settings.BASE_URL}/api/v1/{route}'
    return {"token": token, "plain": plain, "export": f"export TAUON_TOKEN={plain}", "curl": curl}
