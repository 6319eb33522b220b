from tenants.models.audit import AuditEntry
from tenants.models.base import PublicIdField, TenantOwned, VisibleQuerySet, new_public_id
from tenants.models.people import User
from tenants.models.secrets import TenantKey
from tenants.models.tenants import Invitation, Membership, Tenant
from tenants.models.tokens import ApiToken, IdempotencyRecord, SignInLink

__all__ = [
    "ApiToken",
    "AuditEntry",
    "IdempotencyRecord",
    "Invitation",
    "Membership",
    "PublicIdField",
    "SignInLink",
    "Tenant",
    "TenantKey",
    "TenantOwned",
    "User",
    "VisibleQuerySet",
    "new_public_id",
]
