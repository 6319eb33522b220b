"""Usage that is older than anybody may tell it: staff bring it in, with a reason that stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from billing.services import ingest
from billing.services.ingest import Result, Status
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Invalid
from tenants.models import Tenant
from tenants.permissions import require

OLDEST = timedelta(days=3 * 366)  # what is older is a wrong year


def backfill(actor: Actor, *, tenant: str, source: str, reason: str, events: Sequence[Any]) -> list[Result]:
    """Store old usage of a tenant, one result per event; what is stored is in the audit log with its reason.

    Sources and keys are those of `ingest`: a batch that was refused as too late is sent again as it is, and what
    was recorded then is not recorded twice. A frozen invoice stays as it is; the next one has the correction.
    """
    require(actor, "invoices.finalize")
    found = Tenant.objects.filter(public_id=tenant).first() if tenant.isprintable() else None
    if found is None:
        raise Invalid.at("/tenant", "unknown", _("There is no tenant with this id."))
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= 200 or not reason.isprintable():
        raise Invalid.at("/reason", "required", _("Say in 1 to 200 characters why this usage comes so late."))
    ingest.check_batch(source, events)
    with transaction.atomic():
        results = ingest.record_batch(found, source=ingest.NAME_SPACE + source, events=events, oldest=OLDEST)
        counts = Counter(one.outcome for one in results)
        if counts[Status.STORED]:
            audit.record(
                actor, "usage.backfilled", found, tenant=found, source=source, reason=reason,
                stored=counts[Status.STORED], refused=counts[Status.CONFLICT] + counts[Status.INVALID],
            )  # fmt: skip
    return results
