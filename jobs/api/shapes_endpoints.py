"""Shapes of endpoints as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from jobs.models import Endpoint, Revision
from jobs.specs_endpoints import MOST_PER_MINUTE, USUAL_PER_MINUTE
from jobs.states import EndpointStatus
from tenants.api import Strict


class RevisionOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)
    version = serializers.CharField(source="version.public_id", read_only=True)
    model = serializers.CharField(source="version.model.name", read_only=True)
    variant = serializers.CharField(source="version.variant", read_only=True)
    version_number = serializers.IntegerField(source="version.number", read_only=True)

    class Meta:
        model = Revision
        fields = ["id", "number", "version", "model", "version_number", "variant", "created_at"]


class EndpointOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)
    status = serializers.ChoiceField(choices=EndpointStatus.choices, read_only=True)
    url = serializers.URLField(
        source="base_url", read_only=True, help_text="Base of the Open Inference Protocol; /v2 follows."
    )
    infer_url = serializers.SerializerMethodField(help_text="Where to POST infer requests.")
    revision = RevisionOut(source="current", read_only=True, allow_null=True)
    ready_replicas = serializers.IntegerField(read_only=True)
    canary = serializers.SerializerMethodField(help_text="The revision that is tried, and its share.")
    shadow = serializers.SerializerMethodField(help_text="The revision that is asked the same in secret.")

    class Meta:
        model = Endpoint
        fields = [
            "id", "name", "slug", "status", "status_at", "error", "url", "infer_url", "is_public",
            "requests_per_minute", "replicas_wanted", "ready_replicas", "revision", "created_at",
            "canary", "shadow", "deadline_ms", "most_at_once", "min_replicas", "max_replicas",
            "target_concurrency", "scale_up_after_s",
            "scale_down_after_s", "zero_after_s", "warm_hours", "guard_error_share", "guard_p95_ratio",
            "guard_min_requests", "rollout_note", "log_percent", "log_days", "log_masks", "log_mask_texts",
        ]  # fmt: skip

    def get_canary(self, endpoint: Endpoint) -> dict[str, Any] | None:
        return _beside(endpoint.canary, endpoint.canary_share)

    def get_shadow(self, endpoint: Endpoint) -> dict[str, Any] | None:
        return _beside(endpoint.shadow, endpoint.shadow_share)

    def get_infer_url(self, endpoint: Endpoint) -> str:
        return f"{endpoint.base_url}/v2/models/{endpoint.slug}/infer"


def _beside(revision: Revision | None, share: int) -> dict[str, Any] | None:
    return {**RevisionOut(revision).data, "percent": share / 100} if revision else None


class EndpointIn(Strict):
    """For the schema only: EndpointSpec reads the body."""

    name = serializers.CharField(max_length=80)
    version = serializers.CharField(help_text="Public id of a model version, ver_…")
    slug = serializers.CharField(max_length=40, required=False, help_text="Made from the name if left out.")
    is_public = serializers.BooleanField(default=False, help_text="Anybody may call it without a token.")
    requests_per_minute = serializers.IntegerField(
        default=USUAL_PER_MINUTE, min_value=1, max_value=MOST_PER_MINUTE, help_text="For each token."
    )


class EndpointChangeIn(Strict):
    """For the schema only: EndpointChange reads the body."""

    name = serializers.CharField(max_length=80, required=False)
    is_public = serializers.BooleanField(required=False)
    requests_per_minute = serializers.IntegerField(required=False, min_value=1, max_value=MOST_PER_MINUTE)

    deadline_ms = serializers.IntegerField(
        required=False, help_text="504 where the answer takes longer; a caller may ask for less time."
    )
    most_at_once = serializers.IntegerField(
        required=False, help_text="429 beyond that many at one gateway; 0: no limit."
    )
    min_replicas = serializers.IntegerField(required=False, help_text="0: it may sleep; a request wakes it.")
    max_replicas = serializers.IntegerField(required=False)
    target_concurrency = serializers.IntegerField(required=False, help_text="Requests at once per worker.")
    scale_up_after_s = serializers.IntegerField(required=False)
    scale_down_after_s = serializers.IntegerField(required=False)
    zero_after_s = serializers.IntegerField(required=False)
    warm_hours = serializers.ListField(
        required=False, help_text='[{"days": [0, 1], "from": "08:00", "to": "18:00", "replicas": 1}], UTC.'
    )
    guard_error_share = serializers.FloatField(required=False, help_text="A canary beyond it is taken back.")
    guard_p95_ratio = serializers.FloatField(
        required=False, help_text="Times the p95 of the stable revision."
    )
    guard_min_requests = serializers.IntegerField(required=False)
    log_percent = serializers.FloatField(
        required=False, help_text="Of the requests kept in the log; 0: none."
    )
    log_days = serializers.IntegerField(required=False, help_text="How long they are kept.")
    log_masks = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Inputs and columns hidden in the log."
    )
    log_mask_texts = serializers.BooleanField(
        required=False, help_text="Hide e-mail addresses and long numbers in the log."
    )


class RevisionIn(Strict):
    version = serializers.CharField(help_text="Public id of a model version, ver_…")
