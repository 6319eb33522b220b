"""Endpoints over REST."""

from __future__ import annotations

from django.db.models import Count, Q, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.shapes_endpoints import (
    EndpointChangeIn,
    EndpointIn,
    EndpointOut,
    RevisionIn,
    RevisionOut,
)
from jobs.models import Endpoint, Revision
from jobs.services import endpoints as service
from jobs.specs_endpoints import EndpointChange, EndpointSpec, parse_version
from jobs.states import ReplicaStatus
from tenants.actor import Actor
from tenants.api import actor_of
from tenants.permissions import require


class EndpointList(generics.ListAPIView):
    serializer_class = EndpointOut

    def get_queryset(self) -> QuerySet[Endpoint]:
        return described(actor_of(self.request))

    @extend_schema(summary="List endpoints of the tenant, and those shared with you")
    def get(self, request: Request) -> Response:
        if not actor_of(request).may("endpoints.view") and not self.get_queryset().exists():
            require(actor_of(request), "endpoints.view")
        return self.list(request)

    @extend_schema(
        summary="Publish a model version",
        description="It starts at once; `status` becomes `live` when its first worker answers.",
        request=EndpointIn,
        responses={201: EndpointOut},
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "endpoints.publish")
        spec = EndpointSpec.parse(actor, request.data)
        endpoint = service.publish_endpoint(
            actor,
            name=spec.name,
            slug=spec.slug,
            version=spec.version,
            is_public=spec.is_public,
            requests_per_minute=spec.requests_per_minute,
        )
        return answer(actor, endpoint, status=201)


class EndpointDetail(APIView):
    @extend_schema(summary="Read one endpoint", responses=EndpointOut)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(EndpointOut(find(request, public_id)).data)

    @extend_schema(summary="Change name, rate or openness", request=EndpointChangeIn, responses=EndpointOut)
    def patch(self, request: Request, public_id: str) -> Response:
        endpoint = find(request, public_id)
        require(actor_of(request), "endpoints.publish", endpoint)
        service.change_endpoint(actor_of(request), endpoint, EndpointChange.parse(request.data))
        return answer(actor_of(request), endpoint)

    @extend_schema(
        summary="Stop an endpoint",
        description="It costs nothing more. Its address, revisions and grants stay; `start` brings it back.",
        responses=EndpointOut,
    )
    def delete(self, request: Request, public_id: str) -> Response:
        endpoint = find(request, public_id)
        service.stop_endpoint(actor_of(request), endpoint)
        return answer(actor_of(request), endpoint)


class EndpointStart(APIView):
    @extend_schema(summary="Start a stopped or failed endpoint", request=None, responses=EndpointOut)
    def post(self, request: Request, public_id: str) -> Response:
        endpoint = find(request, public_id)
        service.start_endpoint(actor_of(request), endpoint)
        return answer(actor_of(request), endpoint)


class RevisionList(generics.ListAPIView):
    serializer_class = RevisionOut

    def get_queryset(self) -> QuerySet[Revision]:
        if getattr(self, "swagger_fake_view", False):
            return Revision.objects.none()
        return find(self.request, self.kwargs["public_id"]).revisions.select_related("version__model")

    @extend_schema(summary="List the revisions of an endpoint")
    def get(self, request: Request, public_id: str) -> Response:
        return self.list(request)

    @extend_schema(
        summary="Let another model version answer",
        description="What answers now goes on until the new revision is ready. Going back is the same call.",
        request=RevisionIn,
        responses={201: EndpointOut},
    )
    def post(self, request: Request, public_id: str) -> Response:
        actor, endpoint = actor_of(request), find(request, public_id)
        require(actor, "endpoints.publish", endpoint)
        service.revise_endpoint(actor, endpoint, parse_version(actor, request.data))
        return answer(actor, endpoint, status=201)


def described(actor: Actor) -> QuerySet[Endpoint]:
    """The endpoints this actor may see, with what their JSON needs."""
    ready = Count("revisions__replicas", filter=Q(revisions__replicas__status=ReplicaStatus.READY))
    rows = Endpoint.objects.visible_to(actor).select_related(
        "tenant", "current__version__model", "canary__version__model", "shadow__version__model"
    )
    return rows.annotate(ready_replicas=ready)


def find(request: Request, public_id: str) -> Endpoint:
    return get_object_or_404(described(actor_of(request)), public_id=public_id)


def answer(actor: Actor, endpoint: Endpoint, status: int = 200) -> Response:
    """The endpoint as it is now."""
    return Response(EndpointOut(described(actor).get(pk=endpoint.pk)).data, status=status)
