"""Rights in people's words: what each role can do, and what each scope opens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from tenants.roles import PERMISSIONS, Role

# one row of the matrix: what it says, and the permissions it stands for; every role holds all of them or none
RIGHTS: list[tuple[Any, frozenset[str]]] = [
    (_("See the tenant and its people"), frozenset({"tenant.view", "members.view"})),
    (
        _("See datasets, jobs, models and endpoints"),
        frozenset({"datasets.view", "jobs.view", "models.view", "endpoints.view"}),
    ),
    (
        _("Upload datasets, archive them and models"),
        frozenset({"datasets.upload", "datasets.archive", "models.archive"}),
    ),
    (_("Start and stop jobs"), frozenset({"jobs.submit", "jobs.cancel"})),
    (_("Download files of models and jobs"), frozenset({"models.download", "jobs.download"})),
    (
        _("Publish, call and stop endpoints"),
        frozenset({"endpoints.publish", "endpoints.invoke", "endpoints.stop"}),
    ),
    (_("Make and revoke API tokens"), frozenset({"tokens.view", "tokens.create", "tokens.revoke"})),
    (_("See usage and budgets"), frozenset({"usage.view", "budgets.view"})),
    (_("See invoices and set budgets"), frozenset({"invoices.view", "budgets.manage"})),
    (_("Record usage over the API"), frozenset({"usage.record"})),
    (
        _("Share single objects with people and tokens"),
        frozenset({"datasets.share", "jobs.share", "models.share", "endpoints.share"}),
    ),
    (_("Invite people and change their roles"), frozenset({"members.invite", "members.manage"})),
    (
        _("Change settings, read the audit log, revoke any token"),
        frozenset({"tenant.manage", "audit.view", "tokens.manage"}),
    ),
    (_("Make owners, close the tenant"), frozenset({"members.own", "tenant.close"})),
]

SCOPE_WORDS: dict[str, Any] = {
    "tenant:read": _("See the tenant, its people and tokens"),
    "tenant:write": _("Change the tenant, its people and tokens"),
    "datasets:read": _("See datasets"),
    "datasets:write": _("Upload, archive and share datasets"),
    "jobs:read": _("See jobs, their logs and metrics"),
    "jobs:write": _("Start, stop and share jobs"),
    "models:read": _("See and download models"),
    "models:write": _("Archive and share models"),
    "endpoints:read": _("See endpoints"),
    "endpoints:write": _("Publish, stop and share endpoints"),
    "endpoints:invoke": _("Call endpoints"),
    "billing:read": _("See usage and invoices"),
    "billing:write": _("Set budgets and record usage"),
}


# what a grant on one object lets its holder do; each of them lets them see it
GRANT_WORDS: dict[str, Any] = {
    "datasets.view": _("See it"),
    "jobs.view": _("See it, with its log and cost"),
    "jobs.cancel": _("See it and stop it"),
    "models.view": _("See it"),
    "models.download": _("See it and download its files"),
    "endpoints.view": _("See its page"),
    "endpoints.invoke": _("See its page and call it"),
}


def grant_words(permissions: Iterable[str]) -> str:
    """What a holder of these grants may do, in words. Seeing goes without saying where there is more."""
    held = sorted(permissions)
    telling = [one for one in held if not one.endswith(".view")] or held
    return ", ".join(str(GRANT_WORDS[one]) for one in telling)


@dataclass(frozen=True, slots=True, kw_only=True)
class RightsRow:
    label: Any
    held: tuple[bool, ...]  # in the order of Role


def rights_matrix() -> list[RightsRow]:
    """What a role can do, read from the one table of permissions."""
    return [
        RightsRow(label=label, held=tuple(permissions <= PERMISSIONS[role] for role in Role))
        for label, permissions in RIGHTS
    ]
