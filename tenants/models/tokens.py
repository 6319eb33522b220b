"""API tokens, one-time sign-in links, and the memory of idempotent requests."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.actor import Actor
from tenants.models.base import PublicIdField, TenantOwned, VisibleQuerySet


class ApiTokenQuerySet(VisibleQuerySet):
    def usable(self) -> ApiTokenQuerySet:
        """Neither revoked nor expired, made by somebody who is still active."""
        now = timezone.now()
        return self.filter(
            models.Q(expires_at=None) | models.Q(expires_at__gt=now),
            revoked_at=None,
            created_by__is_active=True,
        )

    def managed_by(self, actor: Actor) -> ApiTokenQuerySet:
        """Those the actor may list and revoke: everybody sees their own, admins see all of the tenant."""
        rows = self.visible_to(actor)
        return rows if actor.may("tokens.manage") else rows.filter(created_by=actor.user)


class ApiToken(TenantOwned):
    """A bearer token of one tenant. Only its SHA-256 is kept; the token itself is shown once."""

    NOUN: ClassVar[str] = "tokens"

    public_id = PublicIdField("tok")
    name = models.CharField(_("name"), max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=16)  # "tau_ab…wxyz", to tell tokens apart in a list
    scopes = ArrayField(models.CharField(max_length=32))
    granted_only = models.BooleanField(
        default=False, help_text=_("Limited to objects granted to this token, whatever its maker may do.")
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens"
    )
    parent = models.ForeignKey(  # the token that made it; revoked together
        "self", null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="children"
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = ApiTokenQuerySet.as_manager()  # type: ignore[misc]

    def __str__(self) -> str:
        return self.name

    @property
    def is_usable(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


class SignInLink(models.Model):
    """A one-time sign-in link, printed by `make up`; hashed, single use, short-lived."""

    digest = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"sign-in link of {self.user}"


class IdempotencyRecord(models.Model):
    """The stored answer to one Idempotency-Key of one actor; replayed for 24 hours."""

    scope = models.CharField(max_length=120)  # the actor and the route
    key = models.CharField(max_length=255)
    body_digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)  # None: still running
    body = models.BinaryField(default=b"")
    content_type = models.CharField(max_length=80, default="")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope", "key"], name="one_answer_per_idempotency_key")
        ]

    def __str__(self) -> str:
        return self.key
