"""What every tenant-owned row has: a public id, a tenant, and one way to be seen."""

from __future__ import annotations

import secrets
import time
from typing import Any, ClassVar, Self

from django.db import models
from django.utils import timezone

from tenants import permissions
from tenants.actor import Actor

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base32: no i, l, o, u


def new_public_id(prefix: str) -> str:
    """`job_` + UUIDv7 (RFC 9562) in 26 characters: sorts by time, tells nothing of how many there are."""
    number = (int(time.time() * 1000) << 80) | (7 << 76) | (secrets.randbits(12) << 64)
    number |= (0b10 << 62) | secrets.randbits(62)
    digits = [_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(digits)}"


class PublicIdField(models.CharField):
    """A unique, random, time-sorted id that may be shown to anybody."""

    def __init__(self, prefix: str, **options: Any) -> None:
        self.prefix = prefix
        options.update(max_length=40, unique=True, editable=False)
        super().__init__(**options)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        name, path, arguments, options = super().deconstruct()
        for key in ("max_length", "unique", "editable"):
            options.pop(key, None)
        return name, path, [self.prefix, *arguments], options

    def has_default(self) -> bool:
        return True

    def get_default(self) -> str:
        return new_public_id(self.prefix)


class VisibleQuerySet(models.QuerySet):
    """Reads start with `visible_to(actor)`."""

    def visible_to(self, actor: Actor) -> Self:
        """Rows the actor may see: their tenant's by role, and single objects granted to them."""
        return permissions.visible(self, actor)


class TenantOwned(models.Model):
    """Abstract: a row that belongs to one tenant."""

    # The plural noun of permissions and pages: "jobs" makes "jobs.view". Children name their parent instead.
    NOUN: ClassVar[str] = ""
    SEEN_THROUGH: ClassVar[str | None] = None  # name of the foreign key whose visibility decides ours

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False, db_index=True)

    objects = VisibleQuerySet.as_manager()

    class Meta:
        abstract = True

    def reload(self) -> Self:
        """A fresh copy of this row."""
        return type(self)._base_manager.get(pk=self.pk)
