"""REST routes of this app, and the two helpers every API module shares."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.serializers import Serializer

from tenants.actor import NOBODY, Actor


def actor_of(request: Request) -> Actor:
    """Who acts in this API call. Nobody while the schema is drawn."""
    actor: Actor = getattr(getattr(request, "_request", None), "actor", NOBODY)
    return actor


class Strict(Serializer[Any]):
    """An input that refuses fields it does not know: a typing error must not silently mean the default."""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if unknown := [name for name in data if name not in self.fields]:
            known = ", ".join(name for name, field in self.fields.items() if not field.read_only)
            raise ValidationError(
                {
                    name: ErrorDetail(
                        _("This field is not known. Known fields: %(known)s.") % {"known": known},
                        code="unknown_field",
                    )
                    for name in unknown
                }
            )
        return value
