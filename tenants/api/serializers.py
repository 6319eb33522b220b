"""Shapes of this app's JSON."""

from __future__ import annotations

from rest_framework import serializers

from tenants.api import Strict
from tenants.models import ApiToken, AuditEntry, Invitation, Membership, Tenant
from tenants.roles import SCOPES, Role

ROLES = [str(role) for role in Role]


class TenantOut(serializers.ModelSerializer[Tenant]):
    id = serializers.CharField(source="public_id", read_only=True)
    active = serializers.SerializerMethodField(
        help_text="Whether calls without further word act in this tenant."
    )

    class Meta:
        model = Tenant
        fields = [
            "id", "name", "slug", "active", "max_processes", "max_gpus", "max_storage_bytes", "max_endpoints",
            "created_at",
        ]  # fmt: skip

    def get_active(self, tenant: Tenant) -> bool:
        active = self.context.get("active")
        return active is not None and active.pk == tenant.pk


class TenantIn(Strict):
    name = serializers.CharField(max_length=80)


class MemberOut(serializers.ModelSerializer[Membership]):
    id = serializers.CharField(source="public_id", read_only=True)
    user_id = serializers.CharField(source="user.public_id", read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True)
    name = serializers.CharField(source="user.name", read_only=True)
    role = serializers.ChoiceField(choices=ROLES)

    class Meta:
        model = Membership
        fields = ["id", "user_id", "email", "name", "role", "created_at"]


class RoleIn(Strict):
    role = serializers.ChoiceField(choices=ROLES)


class InvitationOut(serializers.ModelSerializer[Invitation]):
    id = serializers.CharField(source="public_id", read_only=True)
    role = serializers.ChoiceField(choices=ROLES)
    invited_by = serializers.EmailField(
        source="invited_by.email", read_only=True, allow_null=True, default=None
    )
    open = serializers.BooleanField(source="is_open", read_only=True)

    class Meta:
        model = Invitation
        fields = [
            "id",
            "email",
            "role",
            "invited_by",
            "open",
            "expires_at",
            "accepted_at",
            "revoked_at",
            "created_at",
        ]


class InvitationIn(Strict):
    email = serializers.EmailField()
    role = serializers.ChoiceField(choices=ROLES)


class AcceptIn(Strict):
    token = serializers.CharField(max_length=200, help_text="The last part of the link in the mail.")


class TokenOut(serializers.ModelSerializer[ApiToken]):
    id = serializers.CharField(source="public_id", read_only=True)
    created_by = serializers.EmailField(source="created_by.email", read_only=True)
    usable = serializers.BooleanField(source="is_usable", read_only=True)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=list(SCOPES)))

    class Meta:
        model = ApiToken
        fields = [
            "id", "name", "hint", "scopes", "granted_only", "created_by", "usable",
            "expires_at", "revoked_at", "last_used_at", "created_at",
        ]  # fmt: skip


class TokenMade(TokenOut):
    token = serializers.SerializerMethodField(help_text="The token itself. It is shown only in this answer.")

    class Meta(TokenOut.Meta):
        fields = [*TokenOut.Meta.fields, "token"]

    def get_token(self, token: ApiToken) -> str:
        plain: str = self.context["plain"]
        return plain


class TokenIn(Strict):
    name = serializers.CharField(max_length=80)
    scopes = serializers.ListField(child=serializers.CharField(max_length=32), allow_empty=False)
    expires_in_days = serializers.IntegerField(
        required=False, allow_null=True, default=90, help_text="null: until revoked. Left out: 90 days."
    )
    granted_only = serializers.BooleanField(
        required=False, default=False, help_text="Limited to objects shared with this token."
    )


class AuditOut(serializers.ModelSerializer[AuditEntry]):
    id = serializers.CharField(source="public_id", read_only=True)

    class Meta:
        model = AuditEntry
        fields = [
            "id", "at", "actor_kind", "actor_label", "action", "target_type", "target_id", "target_label",
            "details", "request_id", "address",
        ]  # fmt: skip
