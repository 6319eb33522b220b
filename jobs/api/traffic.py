"""Canary, shadow, rollback and live numbers of endpoints over REST."""

from __future__ import annotations

from collections.abc import Callable

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.endpoints import answer, find
from jobs.api.shapes_endpoints import EndpointOut
from jobs.models import Endpoint
from jobs.services import revisions, traffic
from jobs.specs_endpoints import RolloutSpec, parse_share
from tenants.api import Strict, actor_of
from tenants.permissions import require


class RolloutIn(Strict):
    """For the schema only: RolloutSpec reads the body."""

    version = serializers.CharField(help_text="Public id of a model version, ver_…")
    percent = serializers.FloatField(required=False, min_value=0, max_value=100)


class ShareIn(Strict):
    percent = serializers.FloatField(min_value=0, max_value=100)


class EndpointCanary(APIView):
    @extend_schema(
        summary="Try a version with a share of the requests",
        description="5 % if no `percent` is given. It is taken back by itself beyond the guard_* settings.",
        request=RolloutIn,
        responses={201: EndpointOut},
    )
    def put(self, request: Request, public_id: str) -> Response:
        return _begin(request, public_id, revisions.start_canary, usual_percent=5)

    @extend_schema(summary="Change the share of the canary", request=ShareIn, responses=EndpointOut)
    def patch(self, request: Request, public_id: str) -> Response:
        actor, endpoint = actor_of(request), find(request, public_id)
        require(actor, "endpoints.publish", endpoint)
        revisions.set_canary_share(actor, endpoint, parse_share(request.data))
        return answer(actor, endpoint)


class EndpointPromote(APIView):
    @extend_schema(summary="Let the canary answer everybody", request=None, responses=EndpointOut)
    def post(self, request: Request, public_id: str) -> Response:
        actor, endpoint = actor_of(request), find(request, public_id)
        revisions.promote_canary(actor, endpoint)
        return answer(actor, endpoint)


class EndpointRollback(APIView):
    @extend_schema(
        summary="Go one step back",
        description="Takes the canary out; without one, the revision before answers again.",
        request=None,
        responses=EndpointOut,
    )
    def post(self, request: Request, public_id: str) -> Response:
        actor, endpoint = actor_of(request), find(request, public_id)
        revisions.roll_back(actor, endpoint)
        return answer(actor, endpoint)


class EndpointShadow(APIView):
    @extend_schema(
        summary="Send a copy of the requests to another version",
        description="Its answers are measured and thrown away; requests are counted and billed once.",
        request=RolloutIn,
        responses={201: EndpointOut},
    )
    def put(self, request: Request, public_id: str) -> Response:
        return _begin(request, public_id, revisions.start_shadow, usual_percent=100)

    @extend_schema(summary="End the copies", responses=EndpointOut)
    def delete(self, request: Request, public_id: str) -> Response:
        actor, endpoint = actor_of(request), find(request, public_id)
        revisions.stop_shadow(actor, endpoint)
        return answer(actor, endpoint)


class EndpointTraffic(APIView):
    @extend_schema(
        summary="How an endpoint does now",
        description="The last minute, and each revision that is asked.",
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, public_id: str) -> Response:
        return Response(traffic.as_json(find(request, public_id)))


def _begin(
    request: Request, public_id: str, start: Callable[..., Endpoint], *, usual_percent: float
) -> Response:
    """A canary or a shadow, as the body says."""
    actor, endpoint = actor_of(request), find(request, public_id)
    require(actor, "endpoints.publish", endpoint)
    spec = RolloutSpec.parse(actor, request.data, usual_percent=usual_percent)
    start(actor, endpoint, spec.version, share=spec.share)
    return answer(actor, endpoint, status=201)
