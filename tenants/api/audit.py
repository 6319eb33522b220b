"""The audit log over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import F
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api import actor_of
from tenants.api.serializers import AuditOut
from tenants.models import AuditEntry
from tenants.permissions import require


class AuditList(generics.ListAPIView[AuditEntry]):
    serializer_class = AuditOut

    def get_queryset(self) -> Any:
        rows = AuditEntry.objects.visible_to(actor_of(self.request))
        asked = self.request.query_params if self.request is not None else {}
        for name, lookup in (
            ("action", "action"),
            ("actor", "actor_label__icontains"),
            ("target", "target_id"),
        ):
            if value := asked.get(name, "").replace("\0", ""):  # PostgreSQL takes no NUL
                rows = rows.filter(**{lookup: value})
        return rows.annotate(created_at=F("at"))  # the name lists are paged by

    @extend_schema(
        summary="Read who did what, newest first",
        parameters=[
            OpenApiParameter("action", str, description="Exactly this action, such as token.created."),
            OpenApiParameter("actor", str, description="Part of an address or token name."),
            OpenApiParameter("target", str, description="Public id of the object."),
        ],
    )
    def get(self, request: Request) -> Response:
        require(actor_of(request), "audit.view")
        return self.list(request)
