"""The request log of an endpoint over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from jobs.api.endpoints import find
from jobs.models import LoggedRequest
from jobs.services import requests as service
from jobs.services.requests import Wanted
from tenants.api import actor_of


class LoggedRequestOut(serializers.Serializer):
    """For the schema only: `Entry.as_json` writes it."""

    id = serializers.CharField()
    at = serializers.DateTimeField()
    request_id = serializers.CharField()
    status = serializers.IntegerField(help_text="As the caller got it.")
    latency_ms = serializers.FloatField()
    revision = serializers.IntegerField()
    key = serializers.CharField(allow_null=True, help_text="The name of the key or token.")
    token = serializers.CharField(allow_null=True)
    rows = serializers.IntegerField()
    label = serializers.CharField(  # type: ignore[assignment]  # a field's own label is a keyword here
        allow_null=True, help_text="The class of the first row."
    )
    input = serializers.JSONField(help_text="Masked; of pictures only shape and SHA-256.")
    output = serializers.JSONField()


class RequestList(generics.ListAPIView):
    serializer_class = LoggedRequestOut

    def get_queryset(self) -> QuerySet[LoggedRequest]:
        return LoggedRequest.objects.none()  # for the schema: `get` reads, and writes down who did

    @extend_schema(
        summary="Read the request log of an endpoint",
        description=(
            "Newest first, for those who may edit the endpoint; every look is audited. The log is off unless "
            "`log_percent` is above 0."
        ),
        parameters=[
            OpenApiParameter("status", OpenApiTypes.STR, description="2xx, 4xx, 5xx or one number."),
            OpenApiParameter("label", OpenApiTypes.STR, description="A predicted class."),
            OpenApiParameter("token", OpenApiTypes.STR, description="Public id of the token of a key."),
        ],
    )
    def get(self, request: Request, public_id: str) -> Response:
        endpoint = find(request, public_id)
        wanted = Wanted.read(request.query_params)
        rows: QuerySet[LoggedRequest] = service.read_requests(actor_of(request), endpoint, wanted)
        page: list[Any] = list(self.paginate_queryset(rows) or [])
        found = [one.as_json() for one in service.entries(endpoint.tenant, page)]
        return self.get_paginated_response(found)
