"""What the pages of this app share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect

from tenants.http import Request
from tenants.models.base import TenantOwned

View = Callable[..., HttpResponse]


def needs_tenant(view: View) -> View:
    """A person who belongs to no tenant yet is taken to the page that makes one."""

    @wraps(view)
    def checked(request: Request, *args: Any, **options: Any) -> HttpResponse:
        if request.actor.tenant is None:
            return redirect("tenants:tenant_new")
        return view(request, *args, **options)

    return checked


def needs_something_to_see(model: type[TenantOwned]) -> Callable[[View], View]:
    """Like `needs_tenant`, but whoever was given one of these rows is shown it without a tenant of their own."""

    def guard(view: View) -> View:
        with_tenant = needs_tenant(view)

        @wraps(view)
        def checked(request: Request, *args: Any, **options: Any) -> HttpResponse:
            if request.actor.tenant is None and model.objects.visible_to(request.actor).exists():
                return view(request, *args, **options)
            return with_tenant(request, *args, **options)

        return checked

    return guard
