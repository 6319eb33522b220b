"""Publish a model version to an address, change what is there, stop it. Replicas follow by themselves."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from billing.services import budgets
from jobs import routes
from jobs.models import Endpoint, ModelVersion, Revision
from jobs.services.shelf import ensure_in_use
from jobs.specs_endpoints import EndpointChange, check_servable, check_slug, slug_for, slug_taken
from jobs.states import EndpointStatus
from tenants import audit, outbox, quotas
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Invalid
from tenants.lifecycle import move
from tenants.models import Tenant
from tenants.permissions import require


def publish_endpoint(
    actor: Actor,
    *,
    name: str,
    version: ModelVersion,
    slug: str | None = None,
    is_public: bool = False,
    requests_per_minute: int = 600,
) -> Endpoint:
    """Make an endpoint that answers with this version; where the address is taken, give it a new revision."""
    require(actor, "endpoints.publish")
    tenant = version.tenant
    if not actor.is_system and (actor.tenant is None or actor.tenant.pk != tenant.pk):
        raise Invalid.at("/version", "unknown", _("This model version belongs to another tenant."))
    slug = slug or slug_for(name)
    check_slug(slug)
    there = Endpoint.objects.filter(tenant=tenant, slug=slug).select_related("tenant").first()
    if there is not None:
        return revise_endpoint(actor, there, version)
    check_servable(version)
    try:
        with transaction.atomic():
            _ensure_room(tenant)
            endpoint = Endpoint.objects.create(
                tenant=tenant,
                name=name.strip()[:80],
                slug=slug,
                is_public=is_public,
                requests_per_minute=requests_per_minute,
                created_by=actor.user,
            )
            revision = endpoint.current = add_revision(actor, endpoint, version)
            endpoint.save(update_fields=["current"])
            audit.record(
                actor,
                "endpoint.published",
                endpoint,
                version=version.public_id,
                revision=revision.number,
                public=is_public,
            )
            tell()
    except IntegrityError:
        raise Invalid.at("/slug", "taken", slug_taken(slug)) from None
    return endpoint


def revise_endpoint(actor: Actor, endpoint: Endpoint, version: ModelVersion) -> Endpoint:
    """Let another version answer: the old one goes on until the new one is ready."""
    require(actor, "endpoints.publish", endpoint)
    if version.tenant_id != endpoint.tenant_id:
        raise Invalid.at("/version", "unknown", _("This model version belongs to another tenant."))
    check_servable(version)
    with transaction.atomic():
        locked = lock(endpoint)
        if (
            locked.current
            and locked.current.version_id == version.pk
            and locked.status == EndpointStatus.LIVE
        ):
            text = _("%(name)s already answers with %(version)s.")
            raise Conflict(text % {"name": endpoint.name, "version": version})
        if locked.status == EndpointStatus.STOPPED:
            _ensure_room(endpoint.tenant)
        revision = add_revision(actor, locked, version)
        if locked.current is not None:
            locked.previous = locked.current
        locked.current = revision
        # a canary was compared with what answered before; it has nothing to be compared with now
        locked.canary, locked.canary_share, locked.canary_since, locked.rollout_note = None, 0, None, ""
        locked.save(
            update_fields=["previous", "current", "canary", "canary_share", "canary_since", "rollout_note"]
        )
        let_start_again(actor, locked)
        audit.record(actor, "endpoint.revised", locked, version=version.public_id, revision=revision.number)
        tell()
    return locked


def wake_endpoint(endpoint: Endpoint, *, reason: str) -> None:
    """Bring an endpoint that sleeps back: somebody calls, or its warm hours begin."""
    with transaction.atomic():
        locked = lock(endpoint)
        if locked.status == EndpointStatus.ASLEEP:
            wanted = max(1, locked.min_replicas)
            move(locked, to=EndpointStatus.STARTING, by=SYSTEM, reason=reason, replicas_wanted=wanted)
            routes.wake_keeper()


def change_endpoint(actor: Actor, endpoint: Endpoint, change: EndpointChange) -> Endpoint:
    """Change name, openness, rate, or how it is operated."""
    require(actor, "endpoints.publish", endpoint)
    with transaction.atomic():
        locked = lock(endpoint)
        changed: dict[str, Any] = {}
        for field in ("name", "is_public", "requests_per_minute"):
            value = getattr(change, field)
            if value is not None and value != getattr(locked, field):
                setattr(locked, field, value)
                changed[field] = value
        for field, value in change.operation.items():
            if value != getattr(locked, field):
                setattr(locked, field, value)
                changed[field] = value
        if locked.min_replicas > locked.max_replicas:
            text = _("The fewest workers cannot be more than the most.")
            raise Invalid.at("/min_replicas", "range", text)
        if changed:
            locked.save(update_fields=list(changed))
            _fit_replicas(locked)
            audit.record(actor, "endpoint.changed", locked, **changed)
            tell()
    return locked


def _fit_replicas(endpoint: Endpoint) -> None:
    """Bring what is wanted now within new bounds; the caller holds the row."""
    if endpoint.status == EndpointStatus.ASLEEP:
        if endpoint.min_replicas:
            wake_endpoint(endpoint, reason="it may not sleep any more")
        return
    fit = min(max(endpoint.replicas_wanted, endpoint.min_replicas, 1), endpoint.max_replicas)
    if fit != endpoint.replicas_wanted:
        endpoint.replicas_wanted = fit
        endpoint.save(update_fields=["replicas_wanted"])


def stop_endpoint(actor: Actor, endpoint: Endpoint, *, reason: str = "") -> Endpoint:
    """Take it out of service; its address, revisions and grants stay. Twice is as good as once."""
    require(actor, "endpoints.stop", endpoint)
    with transaction.atomic():
        locked = lock(endpoint)
        if locked.status != EndpointStatus.STOPPED:
            move(locked, to=EndpointStatus.STOPPED, by=actor, reason=reason, error=reason)
            tell()
    return locked


def start_endpoint(actor: Actor, endpoint: Endpoint) -> Endpoint:
    """Bring a stopped or failed endpoint back with the revision it has."""
    require(actor, "endpoints.publish", endpoint)
    with transaction.atomic():
        locked = lock(endpoint)
        if locked.status == EndpointStatus.STOPPED:
            _ensure_room(endpoint.tenant)
        if locked.status in {EndpointStatus.STOPPED, EndpointStatus.FAILED}:
            if locked.current is not None:
                ensure_in_use(locked.current.version)
            wanted = max(1, locked.min_replicas)
            move(
                locked,
                to=EndpointStatus.STARTING,
                by=actor,
                reason="started",
                error="",
                replicas_wanted=wanted,
            )
            tell()
    return locked


def add_revision(actor: Actor, endpoint: Endpoint, version: ModelVersion) -> Revision:
    """One with the next number, which answers nobody yet; the caller holds the endpoint's row or has just made it."""
    ensure_in_use(version)
    last = endpoint.revisions.aggregate(last=Max("number"))["last"] or 0
    return Revision.objects.create(
        tenant=endpoint.tenant, endpoint=endpoint, number=last + 1, version=version, created_by=actor.user
    )


def let_start_again(actor: Actor, endpoint: Endpoint) -> None:
    """After a change of what answers: whatever is down or asleep starts with it; the caller holds the row."""
    if endpoint.status in {EndpointStatus.STOPPED, EndpointStatus.FAILED, EndpointStatus.ASLEEP}:
        wanted = max(1, endpoint.min_replicas, endpoint.replicas_wanted)
        move(
            endpoint,
            to=EndpointStatus.STARTING,
            by=actor,
            reason="revised",
            error="",
            replicas_wanted=wanted,
        )


def _ensure_room(tenant: Tenant) -> None:
    """Refuse beyond the quota or the budget; the tenant's row is held, so that two cannot both fit."""
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    used = Endpoint.objects.filter(tenant=tenant).exclude(status=EndpointStatus.STOPPED).count()
    quotas.ensure_within(tenant, what="endpoints", used=used, wanted=1)
    budgets.ensure_can_spend(tenant, high_estimate=Decimal(0))


def lock(endpoint: Endpoint) -> Endpoint:
    rows = Endpoint.objects.select_for_update(of=("self",)).select_related(
        "tenant", "current__version", "previous", "canary", "shadow"
    )
    return rows.get(pk=endpoint.pk)


def tell() -> None:
    """After commit: the keeper of replicas looks at once, and gateways learn the new routes."""
    routes.wake_keeper()
    outbox.enqueue("jobs.publish_routes")
