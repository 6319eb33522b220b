"""Drift of an endpoint over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.endpoints import find
from jobs.services import inputs, predictions_drift
from tenants.api import actor_of

MOST_HOURS = 24 * 31


class EndpointDrift(APIView):
    @extend_schema(
        summary="How far requests and answers are from the training rows",
        description=(
            "PSI (population stability index) of every input of the revision that answers, KS where bins have an "
            "order, and PSI of the predictions. `null`: not known, for the model has no profile or nobody called."
        ),
        parameters=[
            OpenApiParameter("hours", OpenApiTypes.INT, description="Whole hours back, 1 to 744; usually 24.")
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, public_id: str) -> Response:
        endpoint = find(request, public_id)
        actor = actor_of(request)
        asked = str(request.query_params.get("hours", "24"))
        hours = min(MOST_HOURS, max(1, int(asked))) if asked.isascii() and asked.isdigit() else 24
        window = timedelta(hours=hours)
        said = predictions_drift.of(endpoint, window=window)
        found = inputs.drift_of(endpoint.current, window=window) if endpoint.current else None
        is_guest = actor.tenant is None or endpoint.tenant_id != actor.tenant.pk
        body: dict[str, Any] = {
            "hours": hours,
            "predictions": {"psi": said.psi, "rows": said.rows, "reading": said.tone},
            "revision": found.revision.number if found else None,
            "has_profile": bool(found and found.has_profile),
            "rows": found.rows if found else 0,
            "enough_rows": bool(found and found.enough),
            "inputs": [],
        }
        for one in found.gauges if found else ():
            told: dict[str, Any] = {
                "input": one.input, "what": one.what, "psi": one.psi, "ks": one.ks,
                "ks_by_chance": one.ks_by_chance, "reading": one.tone,
            }  # fmt: skip
            if not is_guest:  # guests learn how far, not what the training rows looked like
                told["bins"] = [
                    {"bin": part.label, "trained": round(part.trained, 6), "live": round(part.live, 6)}
                    for part in one.bins
                ]
            body["inputs"].append(told)
        return Response(body)
