"""What every page's shell needs: navigation, tenant switcher, budget meter, theme, words for the scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy as _

from billing.services import budgets
from console import formats
from jobs.models import Dataset, Endpoint, Job, Model
from tenants.actor import NOBODY, Actor
from tenants.models import Membership, Tenant
from tenants.models.tenants import ROLE_CHOICES

THEMES = ("auto", "light", "dark")


class Place(NamedTuple):
    """One entry of the navigation; `marks` are the beginnings of view names that light it up."""

    label: Any
    view: str
    icon: str
    permission: str
    marks: tuple[str, ...]


WORK = (
    Place(_("Overview"), "console:overview", "layout-dashboard", "tenant.view", ("console:overview",)),
    Place(_("Jobs"), "jobs:job_list", "rocket", "jobs.view", ("jobs:job_", "jobs:prediction_")),
    Place(_("Datasets"), "jobs:dataset_list", "database", "datasets.view", ("jobs:dataset_",)),
    Place(
        _("Models"),
        "jobs:model_list",
        "box",
        "models.view",
        ("jobs:model_", "jobs:version_", "jobs:artifact_"),
    ),
    Place(_("Endpoints"), "jobs:endpoint_list", "radio-tower", "endpoints.view", ("jobs:endpoint_",)),
)
ACCOUNT = (
    Place(_("Usage"), "billing:usage", "chart-column", "usage.view", ("billing:usage",)),
    Place(_("Invoices"), "billing:invoice_list", "receipt-text", "invoices.view", ("billing:invoice_",)),
    Place(
        _("Members"),
        "tenants:member_list",
        "users",
        "members.view",
        ("tenants:member_", "tenants:invitation_"),
    ),
    Place(_("API tokens"), "tenants:token_list", "key-round", "tokens.view", ("tenants:token_",)),
    Place(_("Audit log"), "tenants:audit_list", "scroll-text", "audit.view", ("tenants:audit_",)),
)
PLATFORM = (Place(_("Reports"), "billing:report", "chart-pie", "platform.reports", ("billing:report",)),)
# lists of what may also be shared with somebody from elsewhere
SHARED: dict[str, Any] = {
    "jobs:job_list": Job,
    "jobs:dataset_list": Dataset,
    "jobs:model_list": Model,
    "jobs:endpoint_list": Endpoint,
}
GROUPS = ((_("Work"), WORK), (_("Account"), ACCOUNT), (_("Platform"), PLATFORM))

# what the scripts say; msgid -> translation, read through window.tauon.word()
WORDS: tuple[Any, ...] = (
    _("%(n)s d"), _("%(n)s h"), _("%(n)s m"), _("%(n)s s"), _("just now"),
    _("Raw"), _("Smooth"), _("Smoother"), _("Smoothest"), _("Smoothing"), _("Log"), _("Table"), _("Step"),
    _("Waiting for the first point"), _("Training"), _("Validation"),
    _("Live"), _("Reconnecting…"), _("Signed out"), _("about %(eta)s left"),
    _("Too many live pages are open. Close some and reload."),
    _("The server could not do this (%(status)s). Try again."),
    _("The server cannot be reached. Check the connection."),
    _("Copying is not allowed here. Select the text instead."),
)  # fmt: skip


def shell(request: HttpRequest) -> dict[str, Any]:
    """The context processor; the parts that read the database are only read if a template shows them."""
    actor: Actor = getattr(request, "actor", NOBODY)
    return {
        "actor": actor,
        "theme": theme_of(request),
        "words": {str(word._args[0]): str(word) for word in WORDS},
        "nav": later(lambda: navigation(request, actor)),
        "tenant": later(lambda: actor.tenant),
        "tenants": later(lambda: tenants_of(actor)),
        "role_label": later(lambda: str(dict(ROLE_CHOICES).get(actor.role, "")) if actor.role else ""),
        "budget_meter": later(lambda: budget_meter(actor)),
        "user_links": later(lambda: user_links(request, actor)),
        "language_url": link("set_language"),
        "logout_url": link("account_logout"),
        "docs_url": link("api-docs"),
        "tenant_switch_url": link("tenants:tenant_switch"),
        "tenant_new_url": link("tenants:tenant_new"),
        "tenant_settings_url": later(
            lambda: link("tenants:tenant_settings") if actor.may("tenant.manage") else None
        ),
    }


def later(make: Callable[[], Any]) -> Any:
    """Read on first use, once; a page without the shell costs no query."""
    return SimpleLazyObject(make)


def link(view: str, *args: Any) -> str:
    """The address of a view; a name that does not exist is a mistake of ours and raises."""
    return reverse(view, args=args)


def theme_of(request: HttpRequest) -> str:
    """The reader's choice, kept in a cookie so that the first paint is right."""
    chosen = request.COOKIES.get("theme", "auto")
    return chosen if chosen in THEMES else "auto"


def navigation(request: HttpRequest, actor: Actor) -> list[dict[str, Any]]:
    """Groups of places the actor may open, with the present one marked."""
    match = request.resolver_match
    here = match.view_name if match else ""
    groups = []
    for label, places in GROUPS:
        items = [
            {
                "label": place.label,
                "url": link(place.view),
                "icon": place.icon,
                "active": here.startswith(place.marks),
                "count": running_jobs(actor) if place.view == "jobs:job_list" else 0,
            }
            for place in places
            if may_open(actor, place)
        ]
        if items:
            groups.append({"label": label, "items": items})
    return groups


def running_jobs(actor: Actor) -> int:
    """The number beside "Jobs"."""
    return Job.objects.visible_to(actor).running().count()


def may_open(actor: Actor, place: Place) -> bool:
    """Whether the actor's role shows this place at all, or something there is shared with them."""
    if place.permission.startswith("platform."):
        return actor.may(place.permission)
    if actor.tenant is not None and actor.may(place.permission):
        return True
    if place.view == "console:overview":  # without a tenant it is the list of what is shared
        return actor.tenant is None and any(may_open(actor, one) for one in WORK if one is not place)
    model = SHARED.get(place.view)
    return model is not None and model.objects.visible_to(actor).exists()


def tenants_of(actor: Actor) -> list[Tenant]:
    """Tenants the person may switch to."""
    if actor.user is None:
        return []
    memberships = Membership.objects.filter(user=actor.user, tenant__closed_at=None).select_related("tenant")
    return [membership.tenant for membership in memberships.order_by("tenant__name")]


def user_links(request: HttpRequest, actor: Actor) -> list[dict[str, Any]]:
    """The menu under the avatar; `account` marks those that are also tabs of the account pages."""
    match = request.resolver_match
    here = match.view_name if match else ""
    places = [
        (_("Security and passkeys"), "mfa_index", "shield-check", ("mfa_",)),
        (_("E-mail address"), "account_email", "mail", ("account_email", "account_confirm")),
        (
            _("Password"),
            "account_change_password",
            "lock",
            ("account_change_password", "account_set_password"),
        ),
    ]
    if actor.is_staff:
        places.append((_("Site administration"), "admin:index", "settings", ()))
    return [
        {
            "label": label,
            "url": link(view),
            "icon": icon,
            "active": here.startswith(marks),
            "account": bool(marks),
        }
        for label, view, icon, marks in places
    ]


def budget_meter(actor: Actor) -> dict[str, Any] | None:
    """Spend of this month against the tenant's budget, for those who may see money."""
    if actor.tenant is None or not actor.may("budgets.view"):
        return None
    found = budgets.standing(actor.tenant)
    if found is None:
        return None
    spent = formats.money(found.spent, settings.CURRENCY)
    amount = formats.money(found.budget.amount, settings.CURRENCY)
    tone = "bad" if found.percent >= 100 else "warn" if found.percent >= 80 else "info"
    return {
        "label": _("Budget this month"),
        "text": f"{found.percent} %",
        "hint": _("%(spent)s of %(amount)s") % {"spent": spent, "amount": amount},
        "spent": spent,
        "amount": amount,
        "value": found.spent,
        "max": found.budget.amount,
        "tone": tone,
        "mode": found.budget.get_mode_display() if found.percent >= 80 else "",
        "url": link("billing:usage"),
    }
