"""record(): one append-only entry for every change a person, token or the system makes."""

from __future__ import annotations

from typing import Any

from django.apps import apps

from tenants.actor import Actor


def record(actor: Actor, action: str, target: Any = None, *, tenant: Any = None, **details: Any) -> None:
    """Write who did what to which object. Called inside the transaction of the change itself.

    `action` is noun.past-or-state, such as "token.created". Never put a secret into `details`.
    """
    if tenant is None:
        tenant = getattr(target, "tenant", None) or actor.tenant
    apps.get_model("tenants", "AuditEntry").objects.create(
        tenant=tenant,
        actor_kind=actor.kind,
        actor_label=actor.label,
        actor_user_id=actor.user.pk if actor.user else None,
        actor_token_id=actor.token.pk if actor.token else None,
        action=action,
        target_type=type(target).__name__.lower() if target is not None else "",
        target_id=getattr(target, "public_id", "") if target is not None else "",
        target_label=str(target)[:200] if target is not None else "",
        request_id=actor.request_id,
        address=actor.address,
        details={key: value for key, value in details.items() if value not in ("", None)},
    )
