"""Invitations by e-mail link: single use, bound to the address, hashed, with an expiry."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants import audit, http, outbox
from tenants.actor import Actor, ActorKind
from tenants.errors import Conflict, Forbidden, Hidden, Invalid, NotSignedIn
from tenants.models import Invitation, Membership, User
from tenants.permissions import require
from tenants.roles import Role
from tenants.services import accounts
from tenants.services.tenants import can_invite, checked_role, roles_given_by

INVITATION_LASTS = timedelta(days=7)


class InvitationOver(Conflict):
    """This invitation was used, withdrawn or has expired. Ask for a new one."""

    status = 410
    code = "invitation_over"


def invite_member(actor: Actor, *, email: str, role: str) -> Invitation:
    """Invite somebody into the active tenant by mail, with a role not above the inviter's."""
    require(actor, "members.invite")
    email = _checked_email(email)
    wanted = checked_role(role)
    if wanted not in roles_given_by(actor):
        text = _("You cannot invite somebody with a role above your own (%(role)s).")
        raise Invalid.at("/role", "above_own_role", text % {"role": actor.role})
    if Membership.objects.filter(tenant=actor.tenant, user__email__iexact=email).exists():
        text = _("%(email)s already belongs to this tenant.")
        raise Invalid.at("/email", "already_member", text % {"email": email})
    token, now = secrets.token_urlsafe(32), timezone.now()
    with transaction.atomic():
        # one that has expired makes room for a new one
        Invitation.objects.filter(
            tenant=actor.tenant, email__iexact=email, accepted_at=None, revoked_at=None, expires_at__lte=now
        ).update(revoked_at=now)
        try:
            with transaction.atomic():
                invitation = Invitation.objects.create(
                    tenant=actor.the_tenant,
                    email=email,
                    role=wanted,
                    digest=http.digest(token),
                    invited_by=actor.user,
                    expires_at=now + INVITATION_LASTS,
                )
        except IntegrityError:
            text = _("%(email)s has an open invitation. Withdraw it first to send another.")
            raise Invalid.at("/email", "already_invited", text % {"email": email}) from None
        audit.record(actor, "member.invited", invitation, role=wanted)
        _send(actor, invitation, token)
    return invitation


def find_invitation(token: str) -> Invitation:
    """The invitation behind a link, whatever its state, or Hidden."""
    found: Invitation | None = (
        Invitation.objects.select_related("tenant", "invited_by")
        .filter(digest=http.digest(token), tenant__closed_at=None)
        .first()
    )
    if found is None:
        raise Hidden(_("This invitation is not known. Check that all of the link was copied."))
    return found


def is_valid(invitation: Invitation) -> bool:
    """Open, and whoever sent it could send it today: a removed or demoted admin lets nobody in any more."""
    if not invitation.is_open:
        return False
    sender = Membership.objects.filter(tenant=invitation.tenant_id, user=invitation.invited_by_id).first()
    return sender is not None and can_invite(Role(sender.role), Role(invitation.role))


def accept_invitation(actor: Actor, token: str) -> Membership:
    """Join the tenant: only with the invited address, only once; it becomes the active tenant."""
    if actor.kind is ActorKind.NOBODY:
        raise NotSignedIn
    if actor.kind is not ActorKind.PERSON or actor.user is None:
        raise Forbidden(_("Only a signed-in person can do this, not a token."))
    person = actor.user
    with transaction.atomic():
        found = find_invitation(token)
        # the row lock makes the second of two clicks wait, and then see that the invitation is used
        invitation = Invitation.objects.select_for_update().select_related("tenant").get(pk=found.pk)
        if not is_valid(invitation):
            raise InvitationOver
        if invitation.email.lower() != person.email.lower():
            text = _("This invitation is for %(invited)s, and you are signed in as %(person)s.")
            raise Forbidden(text % {"invited": invitation.email, "person": person.email})
        membership, made = Membership.objects.get_or_create(
            tenant=invitation.tenant, user=person, defaults={"role": invitation.role}
        )
        invitation.accepted_at = timezone.now()
        invitation.save(update_fields=["accepted_at"])
        User.objects.filter(pk=person.pk).update(active_tenant=invitation.tenant)
        person.active_tenant = invitation.tenant
        accounts.confirm_address(person)  # the link went to this address and nowhere else
        if made:
            audit.record(actor, "member.joined", membership, role=membership.role)
            outbox.enqueue("jobs.publish_routes")
    return membership


def revoke_invitation(actor: Actor, invitation: Invitation) -> None:
    """Withdraw an invitation that was not accepted yet."""
    require(actor, "members.invite", invitation)
    with transaction.atomic():
        now = timezone.now()
        open_one = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None)
        if not open_one.update(revoked_at=now):
            raise InvitationOver(_("This invitation was already used or withdrawn."))
        invitation.revoked_at = now
        audit.record(actor, "invitation.revoked", invitation)


def _send(actor: Actor, invitation: Invitation, token: str) -> None:
    words = {
        "tenant": invitation.tenant,
        "inviter": actor.user,
        "role": invitation.get_role_display(),
        "link": settings.BASE_URL + reverse("tenants:invitation_accept", args=[token]),
        "days": INVITATION_LASTS.days,
    }
    subject = _("You are invited to %(tenant)s on Tauon") % {"tenant": invitation.tenant.name}
    outbox.mail(invitation.email, subject, render_to_string("tenants/mail/invitation.txt", words))


def _checked_email(email: str) -> str:
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid.at("/email", "email", _("This is not an e-mail address.")) from None
    return email
