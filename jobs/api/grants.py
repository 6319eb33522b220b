"""Grants on single objects over REST: one view for datasets, jobs, models and endpoints."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tenants.api import Strict, actor_of
from tenants.models.base import TenantOwned
from tenants.permissions import require
from tenants.roles import GRANTABLE
from tenants.services import grants


class GrantIn(Strict):
    permission = serializers.ChoiceField(
        choices=sorted(frozenset().union(*GRANTABLE.values())), help_text="One of the object's own noun."
    )
    email = serializers.EmailField(
        required=False, help_text="A person of any tenant, by their confirmed address."
    )
    token = serializers.CharField(required=False, help_text="Public id of a token of this tenant, tok_…")


class GrantOut(serializers.Serializer):
    kind = serializers.ChoiceField(choices=["person", "token"])
    holder_id = serializers.CharField()
    label = serializers.CharField(  # type: ignore[assignment]
        help_text="Address of the person, name of the token."
    )
    permissions = serializers.ListField(child=serializers.CharField())


class GrantsOut(serializers.Serializer):
    data = GrantOut(many=True)  # type: ignore[assignment]


class GrantList(APIView):
    """`GrantList.as_view(model=Dataset)` are the grants on one dataset."""

    model: type[TenantOwned] | None = None

    @extend_schema(summary="Who besides the tenant's own people may use it", responses=GrantsOut)
    def get(self, request: Request, public_id: str) -> Response:
        found = grants.grants_of(actor_of(request), self.target(request, public_id))
        return Response({"data": GrantOut(found, many=True).data})

    @extend_schema(
        summary="Share it with one person or one token", request=GrantIn, responses={201: GrantOut}
    )
    def post(self, request: Request, public_id: str) -> Response:
        target = self.target(request, public_id)
        require(actor_of(request), f"{target.NOUN}.share", target)
        given = GrantIn(data=request.data)
        given.is_valid(raise_exception=True)
        fields = given.validated_data
        made = grants.share(
            actor_of(request),
            target,
            permission=fields["permission"],
            with_email=fields.get("email", ""),
            with_token=fields.get("token", ""),
        )
        return Response(GrantOut(made).data, status=201)

    @extend_schema(
        summary="Take back every grant of one person or one token",
        parameters=[OpenApiParameter("email", str), OpenApiParameter("token", str)],
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, public_id: str) -> Response:
        given = request.query_params
        grants.unshare(
            actor_of(request),
            self.target(request, public_id),
            with_email=given.get("email", ""),
            with_token=given.get("token", ""),
        )
        return Response(status=204)

    def target(self, request: Request, public_id: str) -> Any:
        assert self.model is not None, "as_view(model=...) names what is shared"
        rows = self.model.objects.visible_to(actor_of(request)).select_related("tenant")
        return get_object_or_404(rows, public_id=public_id)
