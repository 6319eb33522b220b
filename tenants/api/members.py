"""Members of the active tenant over REST."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tenants.api import actor_of
from tenants.api.serializers import MemberOut, RoleIn
from tenants.models import Membership
from tenants.permissions import require
from tenants.services import tenants as service


class MemberList(generics.ListAPIView[Membership]):
    serializer_class = MemberOut

    def get_queryset(self) -> Any:
        return Membership.objects.visible_to(actor_of(self.request)).select_related("user")

    @extend_schema(summary="List who belongs to the tenant")
    def get(self, request: Request) -> Response:
        require(actor_of(request), "members.view")
        return self.list(request)


class MemberDetail(APIView):
    @extend_schema(summary="Read one member", responses=MemberOut)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(MemberOut(_member(request, public_id)).data)

    @extend_schema(summary="Change a member's role", request=RoleIn, responses=MemberOut)
    def patch(self, request: Request, public_id: str) -> Response:
        membership = _member(request, public_id)
        require(actor_of(request), "members.manage", membership)
        given = RoleIn(data=request.data)
        given.is_valid(raise_exception=True)
        changed = service.change_role(actor_of(request), membership, **given.validated_data)
        return Response(MemberOut(changed).data)

    @extend_schema(summary="Remove a member", responses={204: None})
    def delete(self, request: Request, public_id: str) -> Response:
        service.remove_member(actor_of(request), _member(request, public_id))
        return Response(status=204)


def _member(request: Request, public_id: str) -> Membership:
    rows = Membership.objects.visible_to(actor_of(request)).select_related("user", "tenant")
    membership: Membership = get_object_or_404(rows, public_id=public_id)
    return membership
