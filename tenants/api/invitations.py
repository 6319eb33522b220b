"""Invitations over REST."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tenants.api import actor_of
from tenants.api.serializers import AcceptIn, InvitationIn, InvitationOut, MemberOut
from tenants.models import Invitation
from tenants.permissions import require
from tenants.services import invitations as service


class InvitationList(generics.ListAPIView[Invitation]):
    serializer_class = InvitationOut

    def get_queryset(self) -> Any:
        return Invitation.objects.visible_to(actor_of(self.request)).select_related("invited_by")

    @extend_schema(summary="List invitations, newest first")
    def get(self, request: Request) -> Response:
        require(actor_of(request), "members.invite")
        return self.list(request)

    @extend_schema(
        summary="Invite somebody; the link goes to their address",
        request=InvitationIn,
        responses={201: InvitationOut},
    )
    def post(self, request: Request) -> Response:
        require(actor_of(request), "members.invite")
        given = InvitationIn(data=request.data)
        given.is_valid(raise_exception=True)
        invitation = service.invite_member(actor_of(request), **given.validated_data)
        return Response(InvitationOut(invitation).data, status=201)


class InvitationDetail(APIView):
    @extend_schema(summary="Read one invitation", responses=InvitationOut)
    def get(self, request: Request, public_id: str) -> Response:
        invitation = _invitation(request, public_id)
        require(actor_of(request), "members.invite", invitation)
        return Response(InvitationOut(invitation).data)

    @extend_schema(summary="Withdraw an invitation", responses={204: None})
    def delete(self, request: Request, public_id: str) -> Response:
        service.revoke_invitation(actor_of(request), _invitation(request, public_id))
        return Response(status=204)


class InvitationAccept(APIView):
    @extend_schema(summary="Join a tenant (sessions only)", request=AcceptIn, responses=MemberOut)
    def post(self, request: Request) -> Response:
        given = AcceptIn(data=request.data)
        given.is_valid(raise_exception=True)
        return Response(
            MemberOut(service.accept_invitation(actor_of(request), given.validated_data["token"])).data
        )


def _invitation(request: Request, public_id: str) -> Invitation:
    rows = Invitation.objects.visible_to(actor_of(request)).select_related("invited_by")
    invitation: Invitation = get_object_or_404(rows, public_id=public_id)
    return invitation
