"""Cost reports over REST, for staff."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api.serializers import ReportIn, ReportOut
from billing.services import costs
from tenants.api import actor_of
from tenants.permissions import require


class Costs(APIView):
    @extend_schema(
        summary="Costs of all tenants over [from, to), grouped one way",
        parameters=[ReportIn],
        responses=ReportOut,
    )
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "platform.reports")
        given = ReportIn(data=request.query_params)
        given.is_valid(raise_exception=True)
        return Response(ReportOut(costs.report(actor, **given.validated_data)).data)
