"""Tenants: made, renamed, switched to, and who belongs to them with which role."""

from __future__ import annotations

import secrets

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _

from tenants import audit, outbox, permissions
from tenants.actor import Actor, ActorKind
from tenants.errors import Conflict, Forbidden, Hidden, Invalid
from tenants.models import ApiToken, Invitation, Membership, Tenant, User
from tenants.permissions import require
from tenants.roles import PERMISSIONS, Role, may_give


class LastOwner(Conflict):
    """A tenant keeps at least one owner. Make somebody else an owner first."""

    code = "last_owner"


def create_tenant(actor: Actor, *, name: str) -> Tenant:
    """Make a tenant owned by the person who asks, and make it their active one."""
    person = _person(actor)
    name = _checked_name(name)
    with transaction.atomic():
        tenant = _insert_tenant(name)
        Membership.objects.create(tenant=tenant, user=person, role=Role.OWNER)
        _make_active(person, tenant)
        audit.record(actor, "tenant.created", tenant, tenant=tenant)
    return tenant


def rename_tenant(actor: Actor, tenant: Tenant, *, name: str) -> Tenant:
    """Change the name people see. The short name in endpoint addresses stays."""
    require(actor, "tenant.manage", tenant)
    name = _checked_name(name)
    with transaction.atomic():
        locked: Tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)
        if locked.name == name:
            return locked
        before, locked.name = locked.name, name
        locked.save(update_fields=["name"])
        audit.record(actor, "tenant.renamed", locked, tenant=locked, before=before, after=name)
    return locked


def switch_tenant(actor: Actor, tenant: Tenant) -> None:
    """Make another of a person's tenants the active one."""
    person = _person(actor)
    if not Membership.objects.filter(user=person, tenant=tenant, tenant__closed_at=None).exists():
        raise Hidden
    _make_active(person, tenant)


def change_role(actor: Actor, membership: Membership, *, role: str) -> Membership:
    """Give a member another role. Only owners make or unmake owners, and one owner always stays."""
    require(actor, "members.manage", membership)
    wanted = checked_role(role)
    with transaction.atomic():
        locked = _lock(membership)
        before = Role(locked.role)
        if before is wanted:
            return locked
        _must_outrank(actor, locked, before, wanted)
        if before is Role.OWNER:
            _keep_an_owner(locked)
        locked.role = wanted
        locked.save(update_fields=["role"])
        audit.record(actor, "member.role_changed", locked, before=before, after=wanted)
        _withdraw_invitations(actor, locked, now_holding=wanted)
        outbox.enqueue("jobs.publish_routes")
    return locked


def remove_member(actor: Actor, membership: Membership) -> None:
    """Take a person out of the tenant, with their tokens and grants there. Anybody may leave."""
    leaving = (
        actor.kind is ActorKind.PERSON and actor.user is not None and membership.user_id == actor.user.pk
    )
    require(actor, "members.view" if leaving else "members.manage", membership)
    with transaction.atomic():
        locked = _lock(membership)
        role = Role(locked.role)
        if not leaving:
            _must_outrank(actor, locked, role)
        if role is Role.OWNER:
            _keep_an_owner(locked)
        person, tenant = locked.user, locked.tenant
        for token in ApiToken.objects.filter(tenant=tenant, created_by=person, revoked_at=None):
            token.revoked_at = timezone.now()
            token.save(update_fields=["revoked_at"])
            permissions.forget_token(token)
        permissions.revoke_within(tenant, of=person)
        User.objects.filter(pk=person.pk, active_tenant=tenant).update(active_tenant=None)
        audit.record(actor, "member.left" if leaving else "member.removed", locked, role=role)
        _withdraw_invitations(actor, locked, now_holding=None)
        locked.delete()
        outbox.enqueue("jobs.publish_routes")


def roles_given_by(actor: Actor) -> tuple[Role, ...]:
    """The roles this actor may hand out."""
    if actor.is_system:
        return tuple(Role)
    return tuple(role for role in Role if actor.role is not None and may_give(actor.role, role))


def can_invite(sender: Role, role: Role) -> bool:
    """Whether somebody with the sender's role may invite somebody with this role."""
    return "members.invite" in PERMISSIONS[sender] and may_give(sender, role)


def checked_role(role: str) -> Role:
    """The role of this name, or Invalid with the names there are."""
    if role not in list(Role):
        text = _("%(role)s is not a role. Roles are: %(known)s.")
        raise Invalid.at("/role", "unknown_role", text % {"role": role, "known": ", ".join(Role)})
    return Role(role)


def _withdraw_invitations(actor: Actor, sender: Membership, *, now_holding: Role | None) -> None:
    """Open invitations end with the right to send them; what the sender may still give stays."""
    sent = Invitation.objects.filter(tenant=sender.tenant, invited_by=sender.user)
    for invitation in sent.filter(accepted_at=None, revoked_at=None).select_for_update():
        if now_holding is None or not can_invite(now_holding, Role(invitation.role)):
            invitation.revoked_at = timezone.now()
            invitation.save(update_fields=["revoked_at"])
            audit.record(actor, "invitation.revoked", invitation)


def _must_outrank(actor: Actor, target: Membership, *roles: Role) -> None:
    if Role.OWNER in roles:
        require(actor, "members.own", target)
    if not set(roles) <= set(roles_given_by(actor)):
        raise Forbidden(_("You cannot give or take a role above your own."))


def _lock(membership: Membership) -> Membership:
    """The membership as it is now, the tenant locked: changes of roles in one tenant queue up."""
    Tenant.objects.select_for_update().get(pk=membership.tenant_id)
    rows = Membership.objects.select_related("tenant", "user")
    found: Membership | None = rows.filter(pk=membership.pk).first()
    if found is None:
        raise Hidden
    return found


def _keep_an_owner(leaving: Membership) -> None:
    others = Membership.objects.filter(tenant=leaving.tenant, role=Role.OWNER, user__is_active=True)
    if not others.exclude(pk=leaving.pk).exists():
        raise LastOwner


def _person(actor: Actor) -> User:
    if actor.kind is not ActorKind.PERSON or actor.user is None:
        raise Forbidden(_("Only a signed-in person can do this, not a token."))
    return actor.user


def _make_active(person: User, tenant: Tenant) -> None:
    User.objects.filter(pk=person.pk).update(active_tenant=tenant)
    person.active_tenant = tenant


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= 80:
        raise Invalid.at("/name", "length", _("Give the tenant a name of 1 to 80 characters."))
    return name


def _insert_tenant(name: str) -> Tenant:
    # a name without Latin letters leaves no short name: a random one is better than a bad guess
    base = slugify(name)[:32].strip("-_") or f"team-{secrets.token_hex(3)}"
    slug = base
    for attempt in range(2, 12):
        try:
            with transaction.atomic():
                made: Tenant = Tenant.objects.create(name=name, slug=slug)
                return made
        except IntegrityError:
            slug = f"{base}-{attempt}" if attempt < 8 else f"{base}-{secrets.token_hex(3)}"
    raise Conflict(_("No free short name was found for this tenant. Choose another name."))
