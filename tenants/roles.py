"""Role -> permissions, one table on one screen. Pure: no Django."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    BILLING = "billing"


_LOOK = frozenset({
    "tenant.view", "members.view", "datasets.view", "jobs.view", "models.view", "endpoints.view",
})  # fmt: skip
_MONEY = frozenset({
    "tenant.view", "members.view", "usage.view", "invoices.view", "budgets.view", "budgets.manage",
})  # fmt: skip
_WORK = _LOOK | {
    "datasets.upload", "datasets.archive", "jobs.submit", "jobs.cancel", "jobs.download",
    "models.download", "endpoints.publish", "endpoints.invoke", "endpoints.stop", "tokens.view", "tokens.create",
    "tokens.revoke", "usage.view", "budgets.view", "models.archive",
}  # fmt: skip
_RUN = _WORK | _MONEY | {
    "tenant.manage", "members.invite", "members.manage", "tokens.manage", "audit.view",
    "datasets.share", "jobs.share", "models.share", "endpoints.share", "usage.record",
}  # fmt: skip

PERMISSIONS: dict[Role, frozenset[str]] = {
    Role.VIEWER: _LOOK,
    Role.BILLING: _MONEY,
    Role.MEMBER: _WORK,
    Role.ADMIN: _RUN,
    Role.OWNER: _RUN | {"tenant.close", "members.own"},  # members.own: make or unmake an owner
}
EVERY_PERMISSION = frozenset().union(*PERMISSIONS.values())

# Held by staff of the installation, whatever their tenant; never by a role.
PLATFORM_PERMISSIONS = frozenset({"platform.reports", "invoices.finalize", "prices.manage"})

# What may be granted on one object to one person or one token, and the plural noun it belongs to.
GRANTABLE: dict[str, frozenset[str]] = {
    "datasets": frozenset({"datasets.view"}),
    "jobs": frozenset({"jobs.view", "jobs.cancel"}),
    "models": frozenset({"models.view", "models.download"}),
    "endpoints": frozenset({"endpoints.view", "endpoints.invoke"}),
}

SCOPES: tuple[str, ...] = (
    "tenant:read", "tenant:write", "datasets:read", "datasets:write", "jobs:read", "jobs:write",
    "models:read", "models:write", "endpoints:read", "endpoints:write", "endpoints:invoke",
    "billing:read", "billing:write",
)  # fmt: skip

_AREA = {
    "members": "tenant", "tokens": "tenant", "audit": "tenant", "tenant": "tenant",
    "usage": "billing", "invoices": "billing", "budgets": "billing", "platform": "billing",
    "prices": "billing",
}  # fmt: skip
_READING = {"view", "download", "reports"}


def scope_for(permission: str) -> str:
    """The token scope that carries a permission: `jobs.cancel` -> `jobs:write`."""
    noun, verb = permission.split(".")
    area = _AREA.get(noun, noun)
    if permission == "endpoints.invoke":
        return "endpoints:invoke"
    return f"{area}:read" if verb in _READING else f"{area}:write"


def may_give(giver: Role, role: Role) -> bool:
    """Nobody hands out more than they hold."""
    return PERMISSIONS[role] <= PERMISSIONS[giver]


def scopes_of(role: Role, *, staff: bool = False) -> tuple[str, ...]:
    """The scopes a token made by somebody with this role may carry."""
    held = PERMISSIONS[role] | (PLATFORM_PERMISSIONS if staff else frozenset())
    reach = {scope_for(permission) for permission in held}
    return tuple(scope for scope in SCOPES if scope in reach)
