"""Django admin for staff of the installation: read mostly, quotas and access of people may be changed."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.http import HttpRequest

from tenants import audit, outbox
from tenants.http import Request
from tenants.models import Tenant, User


class ReadMostly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Nothing is added or deleted here; that is what pages and services are for."""

    audit_action = ""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        tenant = obj if isinstance(obj, Tenant) else None
        values = {name: form.cleaned_data[name] for name in form.changed_data}
        audit.record(cast(Request, request).actor, self.audit_action, obj, tenant=tenant, **values)
        outbox.enqueue("jobs.publish_routes")  # tokens of a person switched off end at the gateway too


@admin.register(User)
class UserAdmin(ReadMostly):
    audit_action = "person.changed_by_staff"
    list_display = ("email", "name", "is_active", "is_staff", "last_login", "date_joined")
    list_filter = ("is_active", "is_staff")
    search_fields = ("email", "name", "public_id")
    ordering = ("email",)
    fields = ("public_id", "email", "name", "is_active", "is_staff", "last_login", "date_joined")
    readonly_fields = ("public_id", "email", "last_login", "date_joined")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Only a superuser makes or unmakes staff."""
        return self.readonly_fields if request.user.is_superuser else (*self.readonly_fields, "is_staff")


@admin.register(Tenant)
class TenantAdmin(ReadMostly):
    audit_action = "tenant.quotas_changed"
    list_display = ("name", "slug", "max_processes", "max_gpus", "max_endpoints", "created_at", "closed_at")
    search_fields = ("name", "slug", "public_id")
    ordering = ("name",)
    fields = (
        "public_id", "name", "slug", "max_processes", "max_gpus", "max_storage_bytes", "max_endpoints",
        "created_at", "closed_at",
    )  # fmt: skip
    readonly_fields = ("public_id", "name", "slug", "created_at", "closed_at")
