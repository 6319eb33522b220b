"""The palette: what the actor may open, and what the actor may do, by a few typed letters."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _

from console.context import GROUPS, link, may_open
from jobs.models import Dataset, Endpoint, Job, Model
from tenants.actor import Actor

EACH = 5
MOST_LETTERS = 80
KINDS = (
    (Job, _("Job"), "rocket", "jobs:job_detail"),
    (Dataset, _("Dataset"), "database", "jobs:dataset_detail"),
    (Model, _("Model"), "box", "jobs:model_detail"),
    (Endpoint, _("Endpoint"), "radio-tower", "jobs:endpoint_detail"),
)
ACTIONS = (
    (_("New job"), "jobs:job_new", "rocket", "jobs.submit"),
    (_("New dataset"), "jobs:dataset_new", "upload", "datasets.upload"),
    (_("New endpoint"), "jobs:endpoint_new", "radio-tower", "endpoints.publish"),
    (_("New API token"), "tenants:token_list", "key-round", "tokens.create"),
    (_("Invite a colleague"), "tenants:member_list", "user-plus", "members.invite"),
    (_("New tenant"), "tenants:tenant_new", "building-2", ""),
    (_("API reference"), "api-docs", "book-open", ""),
    (_("Security and passkeys"), "mfa_index", "shield-check", ""),
)


def results(actor: Actor, text: str) -> list[dict[str, Any]]:
    """Groups of hits; without text, where to go and what to do."""
    text = text.strip()[:MOST_LETTERS]
    groups: list[dict[str, Any]] = []
    if text:
        groups.append({"label": _("Found"), "hits": objects(actor, text)})
    groups.append({"label": _("Go to"), "hits": [hit for hit in places(actor) if matches(hit, text)]})
    groups.append({"label": _("Do"), "hits": [hit for hit in actions(actor) if matches(hit, text)]})
    number = 0
    for group in groups:
        for hit in group["hits"]:
            number += 1
            hit["dom_id"] = f"hit-{number}"
    return [group for group in groups if group["hits"]]


def objects(actor: Actor, text: str) -> list[dict[str, Any]]:
    """Jobs, datasets, models and endpoints by name or the start of their id."""
    found = []
    for model, what, icon, view in KINDS:
        rows: QuerySet[Any] = model.objects.visible_to(actor).filter(
            Q(name__icontains=text) | Q(public_id__startswith=text)
        )
        if model in (Dataset, Model):
            rows = rows.filter(archived_at=None)
        found += [
            {"label": row.name, "what": what, "icon": icon, "url": link(view, row.public_id)}
            for row in rows.order_by("-created_at")[:EACH]
        ]
    return found


def places(actor: Actor) -> list[dict[str, Any]]:
    """The pages of the navigation this actor may open."""
    return [
        {"label": place.label, "what": _("Page"), "icon": place.icon, "url": link(place.view)}
        for _group, group in GROUPS
        for place in group
        if may_open(actor, place)
    ]


def actions(actor: Actor) -> list[dict[str, Any]]:
    """What the actor may start from here."""
    return [
        {"label": label, "what": _("Action"), "icon": icon, "url": link(view)}
        for label, view, icon, permission in ACTIONS
        if not permission or (actor.tenant is not None and actor.may(permission))
    ]


def matches(hit: dict[str, Any], text: str) -> bool:
    """Every typed word occurs in the label."""
    label = str(hit["label"]).lower()
    return all(word in label for word in text.lower().split())
