"""Alerts of endpoints over REST."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.endpoints import find
from jobs.models import AlertMetric, AlertRule
from jobs.services import alerts as service
from jobs.specs_alerts import AlertSpec
from tenants.api import Strict, actor_of
from tenants.permissions import require


class AlertOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)

    class Meta:
        model = AlertRule
        fields = [
            "id", "name", "metric", "class_name", "above", "threshold", "window_s", "min_requests", "emails",
            "webhook_url", "firing_since", "value", "created_at",
        ]  # fmt: skip


class AlertMade(AlertOut):
    webhook_secret = serializers.CharField(help_text="Shown once: the secret that signs its messages.")

    class Meta(AlertOut.Meta):
        fields = [*AlertOut.Meta.fields, "webhook_secret"]


class AlertIn(Strict):
    """For the schema only: AlertSpec reads the body."""

    name = serializers.CharField(max_length=80)
    metric = serializers.ChoiceField(choices=AlertMetric.choices)
    class_name = serializers.CharField(
        required=False, help_text="For class_share; for input_drift one input, or none for the furthest."
    )
    above = serializers.BooleanField(default=True)
    threshold = serializers.FloatField()
    window_s = serializers.IntegerField(default=300)
    min_requests = serializers.IntegerField(default=20)
    emails = serializers.ListField(child=serializers.EmailField(), required=False)
    webhook_url = serializers.URLField(required=False)


class AlertList(APIView):
    @extend_schema(summary="List the alerts of an endpoint", responses=AlertOut(many=True))
    def get(self, request: Request, public_id: str) -> Response:
        rows = find(request, public_id).alert_rules.all()
        return Response({"data": AlertOut(rows, many=True).data, "has_more": False, "next_cursor": None})

    @extend_schema(summary="Make an alert", request=AlertIn, responses={201: AlertMade})
    def post(self, request: Request, public_id: str) -> Response:
        actor, endpoint = actor_of(request), find(request, public_id)
        require(actor, "endpoints.publish", endpoint)
        rule, secret = service.create_rule(actor, endpoint, AlertSpec.parse(request.data))
        told: dict[str, Any] = {**AlertOut(rule).data, "webhook_secret": secret}
        return Response(told, status=201)


class AlertDetail(APIView):
    @extend_schema(summary="Remove an alert", responses={204: None})
    def delete(self, request: Request, public_id: str, alert: str) -> Response:
        rows = AlertRule.objects.visible_to(actor_of(request)).select_related("endpoint__tenant")
        rule = get_object_or_404(rows, public_id=alert, endpoint__public_id=public_id)
        service.delete_rule(actor_of(request), rule)
        return Response(status=204)
