"""The only door to django-guardian: who sees what, who may do what, and grants on single objects.

Role decides first. A grant on one object lets in one person or one token besides. guardian knows users and
groups; a token is given a group of its own, so that both kinds of grantee use one table.

Strangers get 404 (`Hidden`), colleagues without the right 403 (`Forbidden`).
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.apps import apps
from django.contrib.auth.models import Group
from django.db.models import Model, Q, QuerySet

from tenants.actor import Actor, ActorKind
from tenants.errors import Forbidden, Hidden, NotSignedIn
from tenants.roles import GRANTABLE, scope_for

Rows = TypeVar("Rows", bound=QuerySet[Any])


def visible(rows: Rows, actor: Actor) -> Rows:
    """The rows an actor may see; see `VisibleQuerySet.visible_to`."""
    return rows if actor.is_system else rows.filter(_sees(rows.model, actor))


def require(actor: Actor, permission: str, target: Any = None) -> None:
    """Let the actor pass, or raise Hidden (a stranger), Forbidden (a colleague) or NotSignedIn."""
    if actor.kind is ActorKind.NOBODY:
        raise NotSignedIn
    if target is None:
        if not actor.may(permission):
            raise Forbidden
        return
    if actor.is_system or _may_on(actor, permission, target):
        return
    if type(target)._base_manager.filter(_sees(type(target), actor), pk=target.pk).exists():
        raise Forbidden
    raise Hidden


def allowed(actor: Actor, permission: str, target: Any) -> bool:
    """Whether `require` would pass: for showing or hiding a button."""
    return actor.is_system or (actor.kind is not ActorKind.NOBODY and _may_on(actor, permission, target))


def grant(permission: str, target: Any, *, to: Any) -> None:
    """Give one person (User) or one token (ApiToken) a permission on one object; seeing it comes along."""
    _shortcuts().assign_perm(_codename(permission), _holder(to), target)
    _shortcuts().assign_perm(_codename(f"{target.NOUN}.view"), _holder(to), target)


def revoke(target: Any, *, to: Any) -> None:
    """Take every grant on this object away from one person or token."""
    for permission in GRANTABLE.get(target.NOUN, ()):
        _shortcuts().remove_perm(_codename(permission), _holder(to), target)


def revoke_within(tenant: Any, *, of: Any) -> None:
    """Take away every grant a person holds on objects of one tenant: they were shown the door."""
    # guardian's module loads models, which do not exist yet while ours are being defined
    from guardian.models import UserObjectPermission  # noqa: PLC0415

    held = UserObjectPermission.objects.filter(user=of).select_related("content_type")
    for permission in held:
        target = permission.content_object
        if target is None or getattr(target, "tenant_id", None) == tenant.pk:
            permission.delete()


def forget_token(token: Any) -> None:
    """Drop the group that stands for a token, and all its grants with it."""
    Group.objects.filter(name=token_group_name(token.public_id)).delete()


def grants(target: Any) -> list[tuple[Any, list[str]]]:
    """Who holds grants on this object: [(User or Group of a token, ["endpoints.invoke", ...])]."""
    found = []
    for lookup in (_shortcuts().get_users_with_perms, _shortcuts().get_groups_with_perms):
        options = {"attach_perms": True}
        if lookup is _shortcuts().get_users_with_perms:
            options |= {"with_group_users": False, "with_superusers": False}
        for holder, codenames in lookup(target, **options).items():
            verbs = sorted(f"{target.NOUN}.{codename.split('_')[0]}" for codename in codenames)
            found.append((holder, verbs))
    return found


def token_group_name(token_public_id: str) -> str:
    """The group that stands for one token."""
    return f"token:{token_public_id}"


def _may_on(actor: Actor, permission: str, target: Any) -> bool:
    if actor.scopes is not None and scope_for(permission) not in actor.scopes:
        return False
    owner = getattr(target, "tenant_id", None) or target.pk  # a Tenant owns itself
    if actor.tenant is not None and owner == actor.tenant.pk and actor.may(permission):
        return True
    anchor = _anchor(target)
    return (
        permission in GRANTABLE.get(anchor.NOUN, ())
        and _granted(type(anchor), actor, permission).filter(pk=anchor.pk).exists()
    )


def _sees(model: type[Model], actor: Actor, path: str = "") -> Q:
    """The condition under which rows of `model` are visible; children follow the key named SEEN_THROUGH."""
    if actor.kind is ActorKind.NOBODY:
        return Q(pk__in=[])
    through = getattr(model, "SEEN_THROUGH", None)
    if through:
        parent: Any = model._meta.get_field(through).related_model
        return _sees(parent, actor, f"{path}{through}__")
    noun = model.NOUN  # type: ignore[attr-defined]
    if noun == "tenant":
        return _sees_tenant(actor)
    condition = Q(pk__in=[])
    if actor.tenant is not None and actor.may(f"{noun}.view"):
        condition |= Q(**{f"{path}tenant": actor.tenant})
    if noun in GRANTABLE and (actor.scopes is None or scope_for(f"{noun}.view") in actor.scopes):
        granted = _granted(model, actor, f"{noun}.view")
        condition |= Q(**{f"{path}pk__in": granted.values("pk")})
    return condition


def _sees_tenant(actor: Actor) -> Q:
    """A person sees every tenant they belong to, not only the active one; a token sees its own."""
    if actor.kind is ActorKind.PERSON and actor.user is not None:
        memberships = apps.get_model("tenants", "Membership").objects.filter(user=actor.user)
        return Q(pk__in=memberships.values("tenant"), closed_at=None)
    if actor.tenant is not None and actor.may("tenant.view"):
        return Q(pk=actor.tenant.pk)
    return Q(pk__in=[])


def _granted(model: type[Model], actor: Actor, permission: str) -> QuerySet[Any]:
    """Objects granted to this very person or token. An inactive person holds nothing."""
    if actor.kind is ActorKind.TOKEN and actor.token is not None:
        group = Group.objects.filter(name=token_group_name(actor.token.public_id)).first()
        if group is None:
            return model._default_manager.none()
        shared: QuerySet[Any] = _shortcuts().get_objects_for_group(group, _codename(permission), klass=model)
        return shared
    if actor.user is None or not actor.user.is_active or actor.token is not None:
        return model._default_manager.none()
    held: QuerySet[Any] = _shortcuts().get_objects_for_user(
        actor.user, _codename(permission), klass=model, use_groups=False, with_superuser=False,
        accept_global_perms=False,
    )  # fmt: skip
    return held


def _anchor(target: Any) -> Any:
    """The object that carries the grants: the target, or the parent it is seen through."""
    while through := getattr(target, "SEEN_THROUGH", None):
        target = getattr(target, through)
    return target


def _holder(grantee: Any) -> Any:
    if isinstance(grantee, apps.get_model("tenants", "ApiToken")):
        return Group.objects.get_or_create(name=token_group_name(grantee.public_id))[0]
    return grantee


def _codename(permission: str) -> str:
    """`endpoints.invoke` -> `invoke_endpoint`, Django's own way of naming."""
    noun, verb = permission.split(".")
    return f"{verb}_{noun.removesuffix('s')}"


def _shortcuts() -> Any:
    # guardian's module loads models, which do not exist yet while ours are being defined
    from guardian import shortcuts  # noqa: PLC0415

    return shortcuts
