"""Tenants over REST."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tenants.api import actor_of
from tenants.api.serializers import TenantIn, TenantOut
from tenants.models import Tenant
from tenants.services import tenants as service


def _shown(request: Request, tenant: Tenant) -> dict[str, object]:
    return TenantOut(tenant, context={"active": actor_of(request).tenant}).data


class TenantList(generics.ListAPIView[Tenant]):
    serializer_class = TenantOut

    def get_queryset(self) -> Any:
        return Tenant.objects.visible_to(actor_of(self.request))

    def get_serializer_context(self) -> dict[str, object]:
        return {**super().get_serializer_context(), "active": actor_of(self.request).tenant}

    @extend_schema(summary="List the tenants you belong to; a token sees its own")
    def get(self, request: Request) -> Response:
        return self.list(request)

    @extend_schema(
        summary="Make a tenant, owned by you and active from now on",
        request=TenantIn,
        responses={201: TenantOut},
    )
    def post(self, request: Request) -> Response:
        given = TenantIn(data=request.data)
        given.is_valid(raise_exception=True)
        tenant = service.create_tenant(actor_of(request), **given.validated_data)
        body = TenantOut(tenant, context={"active": tenant}).data
        return Response(body, status=201)


class TenantDetail(APIView):
    @extend_schema(summary="Read a tenant", responses=TenantOut)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(_shown(request, _tenant(request, public_id)))

    @extend_schema(summary="Rename the active tenant", request=TenantIn, responses=TenantOut)
    def patch(self, request: Request, public_id: str) -> Response:
        tenant = _tenant(request, public_id)
        given = TenantIn(data=request.data)
        given.is_valid(raise_exception=True)
        return Response(
            _shown(request, service.rename_tenant(actor_of(request), tenant, **given.validated_data))
        )


class TenantSwitch(APIView):
    @extend_schema(
        summary="Make this tenant your active one (sessions only)", request=None, responses=TenantOut
    )
    def post(self, request: Request, public_id: str) -> Response:
        tenant = _tenant(request, public_id)
        service.switch_tenant(actor_of(request), tenant)
        return Response(TenantOut(tenant, context={"active": tenant}).data)


def _tenant(request: Request, public_id: str) -> Tenant:
    tenant: Tenant = get_object_or_404(Tenant.objects.visible_to(actor_of(request)), public_id=public_id)
    return tenant
