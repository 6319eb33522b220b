"""Plain functions that make what a test needs, through the real models and services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client
from rest_framework.test import APIClient

from tenants import http
from tenants.models import ApiToken, Membership, Tenant, User
from tenants.roles import SCOPES
from tenants.services import accounts

BrowserOf = Callable[[User], Client]
ApiOf = Callable[..., APIClient]


def make_tenant(name: str = "Lab", **fields: Any) -> Tenant:
    slug = fields.pop("slug", name.lower().replace(" ", "-"))
    return Tenant.objects.create(name=name, slug=slug, **fields)


def make_user(
    email: str, *, tenant: Tenant | None = None, role: str = "member", confirmed: bool = True, **fields: Any
) -> User:
    user = User.objects.create_user(email, "correct horse battery", **fields)
    if confirmed:
        accounts.confirm_address(user)
    if tenant is not None:
        Membership.objects.create(tenant=tenant, user=user, role=role)
        user.active_tenant = tenant
        user.save()
    return user


def make_token(
    user: User, *, scopes: list[str] | None = None, tenant: Tenant | None = None, **fields: Any
) -> str:
    """A token of this person in their active tenant; returns the token itself."""
    token = http.new_token()
    ApiToken.objects.create(
        tenant=tenant or user.active_tenant,
        created_by=user,
        name=fields.pop("name", "test"),
        digest=http.digest(token),
        hint=token[:7],
        scopes=list(SCOPES) if scopes is None else scopes,
        **fields,
    )
    return token
