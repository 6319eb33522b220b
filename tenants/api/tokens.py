"""API tokens over REST."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tenants.api import actor_of
from tenants.api.serializers import TokenIn, TokenMade, TokenOut
from tenants.models import ApiToken
from tenants.permissions import require
from tenants.services import tokens as service


class TokenList(generics.ListAPIView[ApiToken]):
    serializer_class = TokenOut

    def get_queryset(self) -> Any:
        return ApiToken.objects.managed_by(actor_of(self.request)).select_related("created_by")

    @extend_schema(summary="List your tokens; admins see all of the tenant")
    def get(self, request: Request) -> Response:
        require(actor_of(request), "tokens.view")
        return self.list(request)

    @extend_schema(
        summary="Make a token; the answer is the only place it is ever shown",
        request=TokenIn,
        responses={201: TokenMade},
    )
    def post(self, request: Request) -> Response:
        require(actor_of(request), "tokens.create")
        given = TokenIn(data=request.data)
        given.is_valid(raise_exception=True)
        token, plain = service.create_token(actor_of(request), **given.validated_data)
        body = TokenMade(token, context={"plain": plain}).data
        return Response(body, status=201, headers={"Cache-Control": "no-store"})


class TokenDetail(APIView):
    @extend_schema(summary="Read one token", responses=TokenOut)
    def get(self, request: Request, public_id: str) -> Response:
        rows = ApiToken.objects.managed_by(actor_of(request)).select_related("created_by")
        return Response(TokenOut(get_object_or_404(rows, public_id=public_id)).data)


class TokenRevoke(APIView):
    @extend_schema(summary="Revoke a token, at once and for good", request=None, responses=TokenOut)
    def post(self, request: Request, public_id: str) -> Response:
        rows = ApiToken.objects.visible_to(actor_of(request)).select_related("created_by", "tenant")
        token = get_object_or_404(rows, public_id=public_id)
        service.revoke_token(actor_of(request), token)
        return Response(TokenOut(token).data)
