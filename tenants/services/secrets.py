"""Per-tenant data keys: made on first use, unwrapped for a moment, rotated with the master key."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from tenants import audit, crypto
from tenants.actor import Actor
from tenants.models import Tenant, TenantKey


def data_key(tenant: Tenant) -> bytes:
    """The tenant's data key in clear (32 bytes). Never store or log it."""
    key = TenantKey.objects.filter(tenant=tenant).first()
    if key is None:
        wrapped = crypto.wrap_key(crypto.new_data_key(), tenant_id=tenant.public_id)
        key, _ = TenantKey.objects.get_or_create(tenant=tenant, defaults={"wrapped": wrapped})
    return crypto.unwrap_key(bytes(key.wrapped), tenant_id=tenant.public_id)


def rotate_master_key(actor: Actor, *, old: str, new: str) -> int:
    """Wrap every tenant's data key with a new master key; returns how many. All or none."""
    with transaction.atomic():
        keys = list(TenantKey.objects.select_for_update().select_related("tenant").order_by("pk"))
        for key in keys:
            plain = crypto.unwrap_key(bytes(key.wrapped), tenant_id=key.tenant.public_id, master=old)
            key.wrapped = crypto.wrap_key(plain, tenant_id=key.tenant.public_id, master=new)
            key.rotated_at = timezone.now()
            key.save(update_fields=["wrapped", "rotated_at"])
        audit.record(actor, "master_key.rotated", tenants=len(keys))
    return len(keys)
