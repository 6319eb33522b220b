"""Who acts: a person, a token, the system itself, or nobody. Built once per request, socket or task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from tenants.errors import Forbidden, NotSignedIn
from tenants.roles import PERMISSIONS, PLATFORM_PERMISSIONS, Role, scope_for

if TYPE_CHECKING:
    from tenants.models import ApiToken, Tenant, User


class ActorKind(StrEnum):
    NOBODY = "nobody"
    PERSON = "person"
    TOKEN = "token"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The one who acts, in which tenant, with which role. Carried through every service call."""

    kind: ActorKind
    user: User | None = None  # for a token: the person who made it
    token: ApiToken | None = None
    tenant: Tenant | None = None  # the active tenant
    role: Role | None = None
    scopes: frozenset[str] | None = None  # None: not limited by scopes
    granted_only: bool = False  # a token limited to objects granted to it
    request_id: str = ""
    address: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """A name for audit entries and pages."""
        if self.kind is ActorKind.TOKEN and self.token is not None:
            return f"token {self.token.name}"
        if self.user is not None:
            return self.user.email
        return str(self.kind)

    @property
    def is_system(self) -> bool:
        return self.kind is ActorKind.SYSTEM

    @property
    def is_staff(self) -> bool:
        return bool(self.user is not None and self.user.is_staff and self.kind is not ActorKind.NOBODY)

    @property
    def the_tenant(self) -> Tenant:
        """The active tenant, where there must be one."""
        if self.tenant is None:
            raise Forbidden
        return self.tenant

    @property
    def the_user(self) -> User:
        """The person who acts, or who made the token that acts, where there must be one."""
        if self.user is None:
            raise NotSignedIn
        return self.user

    def may(self, permission: str) -> bool:
        """Whether role and scopes allow this in the active tenant, before any grant on a single object."""
        if self.is_system:
            return True
        if self.scopes is not None and scope_for(permission) not in self.scopes:
            return False
        if permission in PLATFORM_PERMISSIONS:
            return self.is_staff
        if self.granted_only or self.role is None:
            return False
        return permission in PERMISSIONS[self.role]

    def within(self, tenant: Tenant) -> Actor:
        """The same actor, acting in this tenant; for the system and for commands."""
        return replace(self, tenant=tenant)


NOBODY = Actor(kind=ActorKind.NOBODY)
SYSTEM = Actor(kind=ActorKind.SYSTEM)
