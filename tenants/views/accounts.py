"""The one-time sign-in link."""

from __future__ import annotations

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from tenants.errors import Hidden
from tenants.http import Request
from tenants.services import accounts


@login_not_required
@never_cache
@require_GET  # a HEAD of some link checker must not spend the link
def magic_login(request: Request, token: str) -> HttpResponse:
    """Sign in the person the link was made for, once."""
    address = request.META.get("REMOTE_ADDR") or ""
    try:
        user = accounts.use_sign_in_link(token, request_id=request.request_id, address=address)
    except (Hidden, accounts.LinkUsedUp) as refusal:
        return render(request, "tenants/link_over.html", {"refusal": refusal}, status=refusal.status)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("console:overview")
