"""Which revision answers whom: canary, shadow, promotion, rollback. Each is one row and one new snapshot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from jobs import canaries
from jobs.canaries import Did, Guard
from jobs.models import Endpoint, ModelVersion, Revision, Sample
from jobs.models.endpoints import WHOLE
from jobs.services import endpoints as house
from jobs.services.shelf import ensure_in_use
from jobs.specs_endpoints import check_servable
from jobs.states import EndpointStatus
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Invalid
from tenants.permissions import require

WINDOW = timedelta(minutes=10)


def start_canary(actor: Actor, endpoint: Endpoint, version: ModelVersion, *, share: int) -> Endpoint:
    """Let another version answer `share` basis points of the requests as soon as it is ready."""
    taken = _("Revision %(n)s is being tried already. Promote it or take it back first.")
    since = {"canary_since": timezone.now(), "rollout_note": ""}
    return _put_beside(actor, endpoint, version, share=share, role="canary", taken=taken, also=since)


def set_canary_share(actor: Actor, endpoint: Endpoint, share: int) -> Endpoint:
    """Send the canary more or less; callers with a sticky word that had it keep it when the share grows."""
    require(actor, "endpoints.publish", endpoint)
    _check_share(share)
    with transaction.atomic():
        locked = _with_canary(endpoint)
        if locked.canary_share != share:
            assert locked.canary is not None
            locked.canary_share = share
            locked.save(update_fields=["canary_share"])
            audit.record(
                actor, "endpoint.canary_share", locked, revision=locked.canary.number, share=share / 100
            )
            house.tell()
    return locked


def promote_canary(actor: Actor, endpoint: Endpoint) -> Endpoint:
    """Let the canary answer everybody. The old revision goes on until there are enough workers of the new."""
    require(actor, "endpoints.publish", endpoint)
    with transaction.atomic():
        locked = _with_canary(endpoint)
        canary = locked.canary
        assert canary is not None
        locked.previous, locked.current = locked.current, canary
        _drop_canary(locked)
        locked.save(
            update_fields=["previous", "current", "canary", "canary_share", "canary_since", "rollout_note"]
        )
        audit.record(actor, "endpoint.promoted", locked, revision=canary.number)
        house.tell()
    return locked


def roll_back(actor: Actor, endpoint: Endpoint, *, note: str = "") -> Endpoint:
    """One step back: take the canary out, or, without one, let the revision before answer again."""
    require(actor, "endpoints.publish", endpoint)
    with transaction.atomic():
        locked = _open(endpoint)
        left = locked.canary or locked.current
        if locked.canary is not None:
            _drop_canary(locked)
        elif locked.previous is not None:
            ensure_in_use(locked.previous.version)
            locked.current, locked.previous = locked.previous, locked.current
            house.let_start_again(actor, locked)
        else:
            raise Conflict(_("There is nothing to go back to: this is the first revision that answered."))
        locked.rollout_note = note
        locked.save(
            update_fields=["previous", "current", "canary", "canary_share", "canary_since", "rollout_note"]
        )
        audit.record(
            actor, "endpoint.rolled_back", locked, revision=left.number if left else None, reason=note
        )
        house.tell()
    return locked


def start_shadow(actor: Actor, endpoint: Endpoint, version: ModelVersion, *, share: int = WHOLE) -> Endpoint:
    """Send a copy of `share` basis points of the requests to another version; nobody sees its answers."""
    taken = _("Revision %(n)s shadows this endpoint already. Stop it first.")
    return _put_beside(actor, endpoint, version, share=share, role="shadow", taken=taken, also={})


def stop_shadow(actor: Actor, endpoint: Endpoint, *, note: str = "") -> Endpoint:
    """End the copies and the shadow's workers. Twice is as good as once."""
    require(actor, "endpoints.publish", endpoint)
    with transaction.atomic():
        locked = _open(endpoint)
        if locked.shadow is not None:
            audit.record(actor, "endpoint.shadow_stopped", locked, revision=locked.shadow.number, reason=note)
            locked.shadow, locked.shadow_share = None, 0
            if note:
                locked.rollout_note = note
            locked.save(update_fields=["shadow", "shadow_share", "rollout_note"])
            house.tell()
    return locked


def judge_canaries() -> list[Endpoint]:
    """Take back every canary that does worse than its owner tolerates; returns the endpoints concerned."""
    fallen = []
    for endpoint in Endpoint.objects.filter(canary__isnull=False).select_related("current", "canary"):
        assert endpoint.canary is not None and endpoint.canary_since is not None
        since = max(endpoint.canary_since, timezone.now() - WINDOW)
        guard = Guard(
            error_share=endpoint.guard_error_share,
            p95_ratio=endpoint.guard_p95_ratio,
            min_requests=endpoint.guard_min_requests,
        )
        stable = did(endpoint.current, since=since)
        why = canaries.fault(stable, did(endpoint.canary, since=since), guard)
        if why:
            note = f"Revision {endpoint.canary.number} was taken back by itself. {why}"
            fallen.append(roll_back(SYSTEM, endpoint, note=note))
    return fallen


def did(revision: Revision | None, *, since: object, shadow: bool = False) -> Did:
    """What a revision did since a moment."""
    rows = Sample.objects.filter(revision=revision, at__gte=since, is_shadow=shadow)
    sums = rows.aggregate(requests=Sum("requests"), errors=Sum("errors"))
    return Did(
        requests=sums["requests"] or 0,
        errors=sums["errors"] or 0,
        latency=canaries.add(rows.values_list("latency", flat=True)),
    )


def _put_beside(
    actor: Actor,
    endpoint: Endpoint,
    version: ModelVersion,
    *,
    share: int,
    role: str,
    taken: str,
    also: dict[str, Any],
) -> Endpoint:
    """Begin a new revision beside the one that answers, in the empty place of a canary or a shadow."""
    require(actor, "endpoints.publish", endpoint)
    _check_share(share)
    _check_version(endpoint, version)
    with transaction.atomic():
        locked = _open(endpoint)
        there: Revision | None = getattr(locked, role)
        if there is not None:
            raise Conflict(taken % {"n": there.number})
        _refuse_the_same(locked, version)
        revision = house.add_revision(actor, locked, version)
        changed = {role: revision, f"{role}_share": share, **also}
        for name, value in changed.items():
            setattr(locked, name, value)
        locked.save(update_fields=list(changed))
        audit.record(actor, f"endpoint.{role}_started", locked, revision=revision.number, share=share / 100)
        house.tell()
    return locked


def _open(endpoint: Endpoint) -> Endpoint:
    """The row, locked, of an endpoint that is not stopped."""
    locked = house.lock(endpoint)
    if locked.status == EndpointStatus.STOPPED:
        raise Conflict(_("This endpoint is stopped. Start it first."))
    return locked


def _with_canary(endpoint: Endpoint) -> Endpoint:
    locked = _open(endpoint)
    if locked.canary is None:
        raise Conflict(_("No revision is being tried. Publish a version to a share of the requests first."))
    return locked


def _drop_canary(endpoint: Endpoint) -> None:
    endpoint.canary, endpoint.canary_share, endpoint.canary_since = None, 0, None
    endpoint.rollout_note = ""


def _check_share(share: int) -> None:
    if not 0 <= share <= WHOLE:
        raise Invalid.at("/share", "range", _("A share lies between 0 and 100 %."))


def _check_version(endpoint: Endpoint, version: ModelVersion) -> None:
    if version.tenant_id != endpoint.tenant_id:
        raise Invalid.at("/version", "unknown", _("This model version belongs to another tenant."))
    check_servable(version)


def _refuse_the_same(endpoint: Endpoint, version: ModelVersion) -> None:
    if endpoint.current is not None and endpoint.current.version_id == version.pk:
        text = _("%(name)s already answers with %(version)s.")
        raise Conflict(text % {"name": endpoint.name, "version": version})
