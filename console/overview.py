"""What the first page shows: work that moves, money, recent activity, and what to do next. Reads only."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import F, QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models import UsageDay
from billing.services import reports
from console import formats
from console.context import budget_meter, link
from jobs.models import Dataset, Endpoint, Job, Model
from jobs.states import EndpointStatus, JobStatus
from tenants.actor import Actor
from tenants.models import ApiToken, AuditEntry, Invitation, Membership

ROWS = 6
SHARED_ROWS = 50
ACTIVITY_ROWS = 8
PAGES = {
    "job": "jobs:job_detail",
    "ds": "jobs:dataset_detail",
    "mdl": "jobs:model_detail",
    "ep": "jobs:endpoint_detail",
    "inv": "billing:invoice_detail",
}
# what happened, past tense, before the name of the thing; steps in between are for the audit log alone
DONE = {
    "tenant.created": _("made the tenant"),
    "tenant.renamed": _("renamed the tenant"),
    "member.invited": _("invited"),
    "member.joined": _("joined"),
    "member.left": _("left"),
    "member.removed": _("removed"),
    "member.role_changed": _("changed the role of"),
    "token.created": _("made the token"),
    "token.revoked": _("revoked the token"),
    "invitation.revoked": _("withdrew the invitation of"),
    "person.signed_in_by_link": _("signed in by link"),
    "dataset.created": _("made the dataset"),
    "dataset.uploaded": _("uploaded"),
    "dataset.version_added": _("added a version to"),
    "dataset.archived": _("archived the dataset"),
    "dataset.files_deleted": _("deleted the files of the archived dataset"),
    "job.submitted": _("launched"),
    "job.queued": _("put back in line"),
    "dataset.restored": _("brought back the dataset"),
    "model.registered": _("made the model"),
    "model.archived": _("archived the model"),
    "model.restored": _("brought back the model"),
    "model.version_archived": _("archived a version of"),
    "model.version_restored": _("brought back a version of"),
    "model.files_deleted": _("deleted files of the archived model"),
    "endpoint.published": _("published"),
    "endpoint.revised": _("put a new version behind"),
    "endpoint.changed": _("changed the settings of"),
    "model.downloaded": _("downloaded"),
    "endpoint.shared": _("shared"),
    "endpoint.unshared": _("stopped sharing"),
    "endpoint.requests_read": _("read the request log of"),
    "endpoint.requests_exported": _("exported the request log of"),
    "invoice.finalized": _("finalized"),
    "budget.set": _("set the budget"),
    "budget.removed": _("removed the budget"),
}

# what became of a thing, after its name
BECAME = {
    "job.succeeded": _("finished"),
    "job.failed": _("failed"),
    "job.cancelled": _("was stopped"),
    "endpoint.live": _("is live"),
    "endpoint.failed": _("does not start"),
    "endpoint.stopped": _("was stopped"),
}
# "is starting", "is running": true at once and said by the page itself
IN_BETWEEN = ("job.starting", "job.running", "job.stopping", "endpoint.starting")


def moving_jobs(actor: Actor) -> QuerySet[Job]:
    """Jobs that are not over, the longest running first."""
    return (
        Job.objects.visible_to(actor)
        .exclude(status__in=[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
        .select_related("created_by")
        .order_by(F("started_at").asc(nulls_last=True), "created_at")
    )


def shared(actor: Actor) -> list[dict[str, Any]]:
    """What people of other tenants let somebody without a tenant see, by kind."""
    kinds = (
        (_("Datasets"), "database", Dataset),
        (_("Jobs"), "rocket", Job),
        (_("Models"), "box", Model),
        (_("Endpoints"), "radio-tower", Endpoint),
    )
    found = []
    for title, icon, kind in kinds:
        rows: QuerySet[Any] = kind.objects.visible_to(actor).select_related("tenant")
        rows = rows.order_by("-created_at", "-pk")
        if kind in (Dataset, Model):
            rows = rows.filter(archived_at=None)
        if rows.exists():
            found.append({"title": title, "icon": icon, "rows": rows[:SHARED_ROWS]})
    return found


def moving(actor: Actor) -> dict[str, Any]:
    """The part of the page that is asked for again while something runs."""
    return {
        "tiles": tiles(actor),
        "jobs": moving_jobs(actor)[:ROWS] if actor.may("jobs.view") else [],
        "jobs_url": link("jobs:job_list"),
        "new_job_url": link("jobs:job_new") if actor.may("jobs.submit") else None,
    }


def tiles(actor: Actor) -> list[dict[str, Any]]:
    """The row on top: only what this role may see."""
    shown: list[dict[str, Any]] = []
    if actor.may("jobs.view"):
        jobs = Job.objects.visible_to(actor)
        queued = jobs.queued().count()
        shown.append(
            {
                "label": _("Running jobs"), "icon": "rocket", "url": link("jobs:job_list"),
                "value": jobs.running().count(),
                "hint": _("%(n)s waiting in line") % {"n": queued} if queued else _("Nothing waits in line"),
            }
        )  # fmt: skip
    if actor.may("usage.view"):
        today = timezone.now().astimezone(UTC).date()
        used = dict(
            UsageDay.objects.visible_to(actor)
            .filter(day=today, price__meter__in=["train.process", "train.gpu"])
            .values_list("price__meter")
            .annotate(total=Sum("quantity"))
        )
        hours = used.get("train.process", Decimal(0)) / 3600
        gpu_hours = used.get("train.gpu", Decimal(0)) / 3600
        shown.append(
            {
                "label": _("Process-hours today"), "icon": "cpu", "url": link("billing:usage"),
                "value": hours.quantize(Decimal("0.01")),
                "hint": _("%(n)s GPU-hours; days are UTC") % {"n": gpu_hours.quantize(Decimal("0.01"))},
            }
        )  # fmt: skip
        shown.append(spend_tile(actor))
    if actor.may("endpoints.view"):
        endpoints = Endpoint.objects.visible_to(actor).exclude(status=EndpointStatus.STOPPED)
        live = endpoints.filter(status=EndpointStatus.LIVE).count()
        other = endpoints.count() - live
        shown.append(
            {
                "label": _("Live endpoints"), "icon": "radio-tower", "url": link("jobs:endpoint_list"),
                "value": live,
                "hint": _("%(n)s starting or failed") % {"n": other} if other else _("Private by default"),
            }
        )  # fmt: skip
    return shown


def spend_tile(actor: Actor) -> dict[str, Any]:
    """This month's spend, with its meter where there is a budget."""
    tile = {"label": _("Spend this month"), "icon": "wallet", "url": link("billing:usage")}
    if meter := budget_meter(actor):
        return tile | {
            "value": meter["spent"],
            "hint": meter["mode"] or _("of a budget of %(amount)s") % {"amount": meter["amount"]},
            "bar": meter,
        }
    spent = reports.month_to_date(actor.tenant) if actor.tenant else 0
    return tile | {"value": formats.money(spent, settings.CURRENCY), "hint": _("No budget is set")}


def checklist(actor: Actor) -> list[dict[str, Any]]:
    """First steps; each ticks itself when it was done, not when it was clicked."""
    tenant = actor.tenant
    used_endpoint = UsageDay.objects.filter(tenant=tenant, price__meter="endpoint.requests", quantity__gt=0)
    steps = [
        (
            "datasets.upload", "jobs:dataset_new", Dataset.objects.filter(tenant=tenant),
            _("Upload a dataset"), _("A CSV, JSON Lines, or a zip of images in class folders."),
        ),
        (
            "jobs.submit", "jobs:job_new", Job.objects.filter(tenant=tenant, status=JobStatus.SUCCEEDED),
            _("Train a model"), _("Pick a recipe, see the price range, launch, and watch it live."),
        ),
        (
            "endpoints.publish", "jobs:endpoint_list", used_endpoint,
            _("Call your endpoint"), _("Publish a model version and send it a row."),
        ),
        (
            "tokens.create", "tenants:token_list", ApiToken.objects.filter(tenant=tenant),
            _("Make an API token"), _("For curl and your own programs. It is shown once."),
        ),
        (
            "members.invite", "tenants:member_list", None,
            _("Invite a colleague"), _("They see what their role allows, and nothing of other tenants."),
        ),
    ]  # fmt: skip
    done_of_people = (
        Invitation.objects.filter(tenant=tenant).exists()
        or Membership.objects.filter(tenant=tenant).count() > 1
    )
    return [
        {
            "title": title,
            "text": text,
            "url": link(view),
            "done": done_of_people if rows is None else rows.exists(),
        }
        for permission, view, rows, title, text in steps
        if actor.may(permission)
    ]


def activity(actor: Actor) -> list[dict[str, Any]]:
    """The newest audit entries: the tenant's for those who may read them, else one's own."""
    if actor.may("audit.view"):
        entries = AuditEntry.objects.visible_to(actor).filter(tenant=actor.tenant)
    else:
        entries = AuditEntry.objects.filter(
            tenant=actor.tenant, actor_user_id=actor.user.pk if actor.user else -1
        )
    newest = entries.exclude(action__in=IN_BETWEEN).exclude(action__startswith="replica.")
    return [sentence(entry) for entry in newest.order_by("-at", "-pk")[:ACTIVITY_ROWS]]


def sentence(entry: AuditEntry) -> dict[str, Any]:
    """One entry in words, with a link where its target has a page."""
    view = PAGES.get(entry.target_id.split("_")[0])
    return {
        "who": _("Tauon") if entry.actor_kind == "system" else entry.actor_label,
        "became": BECAME.get(entry.action, ""),
        "did": DONE.get(entry.action) or entry.action.replace(".", " ").replace("_", " "),
        "what": "" if entry.action.startswith("person.") else entry.target_label,
        "url": link(view, entry.target_id) if view else None,
        "at": entry.at,
        "by_system": entry.actor_kind == "system",
    }
