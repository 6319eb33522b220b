"""Tenants, who belongs to them, and invitations."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.models.base import PublicIdField, TenantOwned, VisibleQuerySet
from tenants.roles import Role

ROLE_CHOICES = [
    (Role.OWNER, _("Owner")),
    (Role.ADMIN, _("Admin")),
    (Role.MEMBER, _("Member")),
    (Role.VIEWER, _("Viewer")),
    (Role.BILLING, _("Billing")),
]


class Tenant(models.Model):
    """A team with its own data, keys, quota and bill."""

    NOUN: ClassVar[str] = "tenant"

    public_id = PublicIdField("ten")
    name = models.CharField(_("name"), max_length=80)
    # part of endpoint addresses: never changes
    slug = models.SlugField(_("short name"), max_length=40, unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    closed_at = models.DateTimeField(null=True, blank=True)
    # None: no limit beyond what the machines have
    max_processes = models.PositiveIntegerField(null=True, blank=True)
    max_gpus = models.PositiveIntegerField(null=True, blank=True)
    max_storage_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    max_endpoints = models.PositiveIntegerField(null=True, blank=True)

    objects = VisibleQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Membership(TenantOwned):
    """One person in one tenant with one role."""

    NOUN: ClassVar[str] = "members"

    public_id = PublicIdField("mem")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(_("role"), max_length=10, choices=ROLE_CHOICES)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="one_membership_per_person"),
            models.CheckConstraint(condition=Q(role__in=list(Role)), name="membership_role_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class Invitation(TenantOwned):
    """An invitation by e-mail link: single use, hashed, bound to the address, with an expiry."""

    NOUN: ClassVar[str] = "members"

    public_id = PublicIdField("invt")
    email = models.EmailField(_("e-mail address"))
    role = models.CharField(_("role"), max_length=10, choices=ROLE_CHOICES, default=Role.MEMBER)
    digest = models.CharField(max_length=64, unique=True)  # SHA-256 of the token in the link
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                "tenant",
                Lower("email"),
                condition=Q(accepted_at=None, revoked_at=None),
                name="one_open_invitation_per_address",
            ),
        ]

    def __str__(self) -> str:
        return self.email

    @property
    def is_open(self) -> bool:
        return self.accepted_at is None and self.revoked_at is None and self.expires_at > timezone.now()
