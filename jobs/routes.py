"""The routing snapshot for gateways: built from the database, kept in Redis, announced when it changes.

Gateways hold it in memory. What they need to decide about a request is in here, and nothing else: endpoints,
addresses of ready workers, SHA-256 of tokens and what each may call. Redis is not the truth: if the key is
gone, the next beat writes it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import defaultdict
from functools import cache
from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection, transaction
from redis import Redis
from redis.exceptions import RedisError

from jobs.gateway.config import ROUTES_CHANNEL, ROUTES_KEY, VERSION_KEY
from jobs.gateway.pulse import KEEPER_CHANNEL, WAKE_KEY
from jobs.models import Endpoint, EndpointKey, ModelVersion, Replica, Revision
from jobs.states import EndpointStatus, ReplicaStatus
from tenants.models import ApiToken, Membership, User
from tenants.permissions import token_group_name
from tenants.roles import PERMISSIONS, Role, scope_for

log = logging.getLogger(__name__)

DIGEST_KEY = "tauon:routes:digest"
INVOKE = "endpoints.invoke"
_TOLD = ("inputs", "outputs", "classes", "recipe")  # of a version's interface
_LOCK = (0x7A02, 1)  # builders one after the other: an older picture must not overwrite a newer one


def publish(*, force: bool = False) -> bool:
    """Build the snapshot and announce it if it changed or is missing; returns whether it was written."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s, %s)", _LOCK)
        content = build()
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        store = redis()
        known, version = cast("list[bytes | None]", store.mget(DIGEST_KEY, VERSION_KEY))
        if not force and version is not None and known == digest.encode() and store.exists(ROUTES_KEY):
            return False
        number = max(time.time_ns() // 1000, int(version or 0) + 1)
        with store.pipeline(transaction=True) as pipe:
            pipe.set(ROUTES_KEY, json.dumps({"version": number, **content}))
            pipe.set(DIGEST_KEY, digest)
            pipe.set(VERSION_KEY, number)
            pipe.publish(ROUTES_CHANNEL, number)
            pipe.execute()
    return True


def build() -> dict[str, Any]:
    """The whole snapshot but its version."""
    return {"endpoints": _endpoints(), "tokens": _tokens()}


def serving(endpoint: Endpoint, ready: list[Replica]) -> Revision | None:
    """The stable revision that answers: the current one, or one before it while it is still starting."""
    beside = {endpoint.canary_id, endpoint.shadow_id}
    there = [replica.revision for replica in ready if replica.revision_id not in beside]
    if not there or any(revision.pk == endpoint.current_id for revision in there):
        return endpoint.current
    return max(there, key=lambda revision: revision.number)


def wake_keeper() -> None:
    """After commit: tell the keeper of replicas to look now. It looks every second anyway."""
    transaction.on_commit(_wake, robust=True)


def take_wakes() -> set[str]:
    """Public ids of endpoints that requests wait for; each is told once."""
    try:
        with redis().pipeline(transaction=True) as pipe:
            pipe.smembers(WAKE_KEY)
            pipe.delete(WAKE_KEY)
            return {one.decode() for one in pipe.execute()[0]}
    except RedisError:
        return set()


@cache
def redis() -> Redis:
    """The client of this process."""
    return Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2)


def _wake() -> None:
    try:
        redis().publish(KEEPER_CHANNEL, "look")
    except RedisError:
        log.warning("the keeper of replicas was not woken; it looks within a second")


def _endpoints() -> dict[str, Any]:
    ready = defaultdict(list)
    for replica in Replica.objects.filter(status=ReplicaStatus.READY).select_related("revision"):
        ready[replica.revision.endpoint_id].append(replica)
    found = {}
    rows = Endpoint.objects.filter(tenant__closed_at=None).select_related(
        "tenant", "current", "canary", "shadow"
    )
    endpoints = list(rows.order_by("pk"))
    shapes = _shapes(endpoints, [one.revision for mine in ready.values() for one in mine])
    for endpoint in endpoints:
        stopped = endpoint.status == EndpointStatus.STOPPED
        mine = [] if stopped else ready[endpoint.pk]
        revision = serving(endpoint, mine)
        found[f"{endpoint.tenant.slug}/{endpoint.slug}"] = {
            "id": endpoint.public_id,
            "tenant_id": endpoint.tenant.public_id,
            "name": endpoint.name,
            "status": endpoint.status,
            "model_version": str(revision.number) if revision else "",
            "public": endpoint.is_public,
            "rpm": endpoint.requests_per_minute,
            "deadline_ms": endpoint.deadline_ms,
            "most_at_once": endpoint.most_at_once or None,
            "workers": sorted(one.address for one in mine if revision and one.revision_id == revision.pk),
            "interface": shapes[revision.version_id] if revision else _interface({}),
            "log": _log(endpoint),
            "sleeps": endpoint.min_replicas == 0 and endpoint.status != EndpointStatus.FAILED and not stopped,
            "canary": _beside(endpoint.canary, endpoint.canary_share, mine, shapes),
            "shadow": _beside(endpoint.shadow, endpoint.shadow_share, mine, shapes),
        }
    return found


def _shapes(endpoints: list[Endpoint], answering: list[Revision]) -> dict[int, dict[str, Any]]:
    """What a gateway tells of each version: read once each, and without the reports that lie beside it."""
    named = [one for endpoint in endpoints for one in (endpoint.current, endpoint.canary, endpoint.shadow)]
    wanted = {one.version_id for one in (*named, *answering) if one is not None}
    columns = [f"interface__{key}" for key in _TOLD]
    rows = ModelVersion.objects.filter(pk__in=wanted).values_list("pk", *columns)
    return {pk: _interface(dict(zip(_TOLD, values, strict=True))) for pk, *values in rows}


def _beside(
    revision: Revision | None, share: int, ready: list[Replica], shapes: dict[int, dict[str, Any]]
) -> dict[str, Any] | None:
    """Another revision of an endpoint and its share of the requests, in basis points."""
    if revision is None:
        return None
    return {
        "revision": str(revision.number),
        "workers": sorted(one.address for one in ready if one.revision_id == revision.pk),
        "share": share,
        "interface": shapes[revision.version_id],
    }


def _log(endpoint: Endpoint) -> dict[str, Any] | None:
    """How much of its requests is kept, in basis points, and what is hidden in them."""
    if endpoint.log_percent <= 0:
        return None
    share = max(1, round(endpoint.log_percent * 100))
    return {"share": share, "masks": endpoint.log_masks, "texts": endpoint.log_mask_texts}


def _interface(interface: dict[str, Any]) -> dict[str, Any]:
    """Of all that is known about a model's interface, what a gateway tells its callers."""
    return {key: interface.get(key) or ("" if key == "recipe" else []) for key in _TOLD}


def _tokens() -> dict[str, Any]:
    """Every usable token; one that may call nothing is known too, so that it gets 403 or 404 and not 401."""
    by_person, by_group = _grants()
    roles = {(one.tenant_id, one.user_id): Role(one.role) for one in Membership.objects.all()}
    limits = {key.token_id: key for key in EndpointKey.objects.filter(token__revoked_at=None)}
    found = {}
    tokens = ApiToken.objects.usable().filter(tenant__closed_at=None).select_related("tenant")
    for token in tokens.order_by("pk"):
        role = roles.get((token.tenant_id, token.created_by_id))
        if role is None:
            continue  # its maker has left
        scoped = scope_for(INVOKE) in token.scopes
        granted = set(by_group[token_group_name(token.public_id)])
        if not token.granted_only:
            granted |= by_person[token.created_by_id]
        found[token.digest] = {
            "id": token.public_id,
            "tenant_id": token.tenant.public_id,
            "expires": token.expires_at.timestamp() if token.expires_at else None,
            "whole_tenant": scoped and not token.granted_only and INVOKE in PERMISSIONS[role],
            "granted": sorted(granted) if scoped else [],
        }
        if (key := limits.get(token.pk)) is not None:
            found[token.digest] |= {
                "per_minute": key.per_minute, "per_day": key.per_day, "networks": key.networks,
            }  # fmt: skip
    return found


def _grants() -> tuple[dict[int, set[str]], dict[str, set[str]]]:
    """Endpoints granted for calling, by person and by group of a token, in two queries."""
    public_ids = {str(pk): public_id for pk, public_id in Endpoint.objects.values_list("pk", "public_id")}

    def held(holders: Any, relation: str, key: str) -> dict[Any, set[str]]:
        found: dict[Any, set[str]] = defaultdict(set)
        rows = holders.filter(
            **{
                f"{relation}__permission__codename": "invoke_endpoint",
                f"{relation}__content_type__model": "endpoint",
            }
        )
        for holder, target in rows.values_list(key, f"{relation}__object_pk"):
            if target in public_ids:
                found[holder].add(public_ids[target])
        return found

    people = held(User.objects.filter(is_active=True), "userobjectpermission", "pk")
    groups = held(Group.objects.filter(name__startswith="token:"), "groupobjectpermission", "name")
    return people, groups
