"""Keys of an endpoint over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.endpoints import find
from jobs.models import EndpointKey
from jobs.services import keys as service
from tenants.api import Strict, actor_of
from tenants.permissions import require
from tenants.services.tokens import LONGEST_DAYS


class KeyIn(Strict):
    name = serializers.CharField(max_length=80)
    expires_in_days = serializers.IntegerField(
        min_value=1, max_value=LONGEST_DAYS, allow_null=True, help_text="null: until it is revoked."
    )
    per_minute = serializers.IntegerField(
        required=False, allow_null=True, help_text="Its own rate; null: the endpoint's."
    )
    per_day = serializers.IntegerField(
        required=False, allow_null=True, help_text="Counted from midnight UTC; null: no limit by day."
    )
    networks = serializers.ListField(
        child=serializers.CharField(max_length=64),
        required=False,
        help_text="Addresses and networks it may be used from; empty: from anywhere.",
    )


class KeyOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)
    name = serializers.CharField(source="token.name", read_only=True)
    hint = serializers.CharField(source="token.hint", read_only=True)
    expires_at = serializers.DateTimeField(source="token.expires_at", read_only=True, allow_null=True)
    revoked_at = serializers.DateTimeField(source="token.revoked_at", read_only=True, allow_null=True)

    class Meta:
        model = EndpointKey
        fields = [
            "id", "name", "hint", "per_minute", "per_day", "networks", "expires_at", "revoked_at", "created_at",
        ]  # fmt: skip


class KeyMade(KeyOut):
    key = serializers.SerializerMethodField(help_text="The key itself. It is never shown again.")

    class Meta(KeyOut.Meta):
        fields = [*KeyOut.Meta.fields, "key"]

    def get_key(self, _key: EndpointKey) -> str:
        return str(self.context["plain"])


class KeyList(generics.ListAPIView):
    serializer_class = KeyOut

    def get_queryset(self) -> QuerySet[EndpointKey]:
        if getattr(self, "swagger_fake_view", False):
            return EndpointKey.objects.none()
        endpoint = find(self.request, self.kwargs["public_id"])
        require(actor_of(self.request), "endpoints.publish", endpoint)
        return EndpointKey.objects.filter(endpoint=endpoint).select_related("token")

    @extend_schema(summary="List the keys of an endpoint, ended ones too")
    def get(self, request: Request, public_id: str) -> Response:
        return self.list(request)

    @extend_schema(
        summary="Make a key for this endpoint alone",
        description="The answer is the only place the key is ever shown. Gateways know it within a second.",
        request=KeyIn,
        responses={201: KeyMade},
    )
    def post(self, request: Request, public_id: str) -> Response:
        endpoint = find(request, public_id)
        require(actor_of(request), "endpoints.publish", endpoint)
        given = KeyIn(data=request.data)
        given.is_valid(raise_exception=True)
        fields: dict[str, Any] = dict(given.validated_data)
        key, plain = service.create_key(actor_of(request), endpoint, **fields)
        body = KeyMade(key, context={"plain": plain}).data
        return Response(body, status=201, headers={"Cache-Control": "no-store"})


class KeyDetail(APIView):
    @extend_schema(summary="Revoke a key, at once and for good", request=None, responses=KeyOut)
    def delete(self, request: Request, public_id: str, key: str) -> Response:
        endpoint = find(request, public_id)
        found = get_object_or_404(
            EndpointKey.objects.filter(endpoint=endpoint).select_related("token__tenant", "endpoint__tenant"),
            public_id=key,
        )
        service.revoke_key(actor_of(request), found)
        found.token.refresh_from_db()
        return Response(KeyOut(found).data)
