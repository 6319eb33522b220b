"""People of the tenant, and invitations."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from tenants.actor import ActorKind
from tenants.errors import Conflict, Invalid
from tenants.forms import InviteForm, add_faults
from tenants.http import Request
from tenants.models import Invitation, Membership
from tenants.models.tenants import ROLE_CHOICES
from tenants.permissions import require
from tenants.roles import Role
from tenants.services import invitations as invite_service
from tenants.services import tenants as service
from tenants.views.common import needs_tenant
from tenants.wording import rights_matrix


@needs_tenant
def member_list(request: Request) -> HttpResponse:
    require(request.actor, "members.view")
    return _page(request, InviteForm(request.actor))


@needs_tenant
@require_POST
def invitation_new(request: Request) -> HttpResponse:
    require(request.actor, "members.invite")
    form = InviteForm(request.actor, request.POST)
    if form.is_valid():
        try:
            invitation = invite_service.invite_member(request.actor, **form.cleaned_data)
        except (Invalid, Conflict) as refusal:
            add_faults(form, refusal)
        else:
            text = _("%(email)s is invited. The link is on its way by mail.")
            if settings.EMAIL_BACKEND.endswith("console.EmailBackend"):
                text = _(
                    "%(email)s is invited. Mail is not set up here: the link is printed in the server's log."
                )
            messages.success(request, text % {"email": invitation.email})
            return redirect("tenants:member_list")
    return _page(request, form, status=422)


@needs_tenant
@require_POST
def invitation_revoke(request: Request, public_id: str) -> HttpResponse:
    invitation = get_object_or_404(Invitation.objects.visible_to(request.actor), public_id=public_id)
    try:
        invite_service.revoke_invitation(request.actor, invitation)
    except Conflict as refusal:
        messages.error(request, refusal.detail)
    else:
        messages.success(
            request, _("The invitation of %(email)s was withdrawn.") % {"email": invitation.email}
        )
    return redirect("tenants:member_list")


@needs_tenant
@require_POST
def member_role(request: Request, public_id: str) -> HttpResponse:
    membership = get_object_or_404(Membership.objects.visible_to(request.actor), public_id=public_id)
    try:
        changed = service.change_role(request.actor, membership, role=request.POST.get("role", ""))
    except (Invalid, Conflict) as refusal:
        messages.error(request, refusal.detail)
    else:
        words = {"person": changed.user, "role": changed.get_role_display()}
        messages.success(request, _("%(person)s: the role is now %(role)s.") % words)
    return redirect("tenants:member_list")


@needs_tenant
@require_POST
def member_remove(request: Request, public_id: str) -> HttpResponse:
    membership = get_object_or_404(Membership.objects.visible_to(request.actor), public_id=public_id)
    left = membership.user_id == request.actor.the_user.pk
    try:
        service.remove_member(request.actor, membership)
    except Conflict as refusal:
        messages.error(request, refusal.detail)
        return redirect("tenants:member_list")
    text = _("You left %(tenant)s.") if left else _("%(person)s was removed from %(tenant)s.")
    messages.success(request, text % {"person": membership.user, "tenant": membership.tenant})
    return redirect("console:overview" if left else "tenants:member_list")


@login_not_required
@never_cache
def invitation_accept(request: Request, token: str) -> HttpResponse:
    """The page behind the link in the mail; signed out, it leads through sign-up or sign-in and back."""
    invitation = invite_service.find_invitation(token)
    if request.method == "POST":
        try:
            membership = invite_service.accept_invitation(request.actor, token)
        except invite_service.InvitationOver:
            pass  # shown by the page below
        else:
            messages.success(request, _("Welcome to %(tenant)s.") % {"tenant": membership.tenant})
            return redirect("console:overview")
        invitation = invite_service.find_invitation(token)
    actor = request.actor
    state = "over"
    if invite_service.is_valid(invitation):
        state = "signed_out"
        if actor.kind is ActorKind.PERSON:
            state = "ready" if actor.the_user.email.lower() == invitation.email.lower() else "somebody_else"
    context = {"invitation": invitation, "state": state}
    return render(request, "tenants/invitations/accept.html", context, status=410 if state == "over" else 200)


def _page(request: Request, form: InviteForm, status: int = 200) -> HttpResponse:
    actor = request.actor
    given = service.roles_given_by(actor)
    manages = actor.may("members.manage")
    rows = []
    members = Membership.objects.visible_to(actor).select_related("user").order_by("created_at", "pk")
    for membership in members:
        role = Role(membership.role)
        within = role in given and (role is not Role.OWNER or actor.may("members.own"))
        rows.append(
            {
                "membership": membership,
                "is_me": membership.user_id == actor.the_user.pk,
                "may_change": manages and within,
            }
        )
    pending = Invitation.objects.none()
    if actor.may("members.invite"):
        pending = (
            Invitation.objects.visible_to(actor)
            .filter(accepted_at=None, revoked_at=None)
            .select_related("invited_by")
            .order_by("-created_at")
        )
    context = {
        "rows": rows,
        "pending": pending,
        "form": form,
        "may_invite": actor.may("members.invite"),
        "role_choices": [(str(role), label) for role, label in ROLE_CHOICES if role in given],
        "roles": [label for _role, label in ROLE_CHOICES],
        "matrix": rights_matrix(),
        "now": timezone.now(),
    }
    return render(request, "tenants/members/list.html", context, status=status)
