"""The dialog that shares one object with one person or token; the pages of all four nouns use it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.urls import reverse
from django.utils.translation import gettext as _

from jobs.forms_datasets import ShareForm
from tenants.errors import Refused
from tenants.forms import add_faults
from tenants.http import Request
from tenants.permissions import allowed, require
from tenants.services import grants
from tenants.wording import grant_words


def share_context(request: Request, target: Any, form: ShareForm | None = None) -> dict[str, Any]:
    """What the dialog shows, for those who may share: `share` is None for all others."""
    if not allowed(request.actor, f"{target.NOUN}.share", target):
        return {"share": None}
    noun = target.NOUN.removesuffix("s")
    found = grants.grants_of(request.actor, target)
    return {
        "share": {
            "form": form or ShareForm(request.actor, target),
            "grants": [{"to": one, "words": grant_words(one.permissions)} for one in found],
            "url": reverse(f"jobs:{noun}_share", args=[target.public_id]),
            "back_url": reverse(f"jobs:{noun}_unshare", args=[target.public_id]),
        }
    }


def share_with(request: Request, target: Any) -> ShareForm | None:
    """Share as the form says; returns the form with its errors, or None when done."""
    require(request.actor, f"{target.NOUN}.share", target)
    form = ShareForm(request.actor, target, request.POST)
    if not form.is_valid():
        return form
    try:
        made = grants.share(
            request.actor,
            target,
            permission=form.cleaned_data["permission"],
            with_email=form.cleaned_data["email"],
            with_token=form.cleaned_data["token"],
        )
    except Refused as refusal:
        add_faults(form, refusal)
        return form
    messages.success(request, _("Shared with %(who)s.") % {"who": made.label})
    return None


def unshare_from(request: Request, target: Any) -> None:
    """Take back what the posted holder was given."""
    holder = request.POST.get("holder", "").replace("\0", "")  # PostgreSQL takes no NUL
    if request.POST.get("kind") == "token":
        grants.unshare(request.actor, target, with_token=holder)
    else:
        grants.unshare(request.actor, target, with_email=holder)
    messages.success(request, _("No longer shared."))
