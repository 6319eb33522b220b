"""Usage told from outside over REST: a batch in, one result per event out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api.parsers import ExactJson
from billing.services.backfill import backfill
from billing.services.ingest import MOST_EVENTS, Result, Status, ingest
from tenants.api import actor_of
from tenants.errors import Fault, Invalid
from tenants.permissions import require


class EventIn(serializers.Serializer):
    """One piece of usage; for the schema: reading is the service's work."""

    key = serializers.CharField(
        max_length=200, help_text="Unique within the source; a repeat changes nothing."
    )
    meter = serializers.CharField()
    sku = serializers.CharField(default="standard")
    quantity = serializers.CharField(help_text="In base units, zero or more; a number or its text.")
    event_time = serializers.DateTimeField(required=False, help_text="With offset; without it, now.")
    subject = serializers.CharField(max_length=40, help_text="What it was spent on, such as a job's id.")
    subject_title = serializers.CharField(max_length=200, required=False)
    user = serializers.CharField(max_length=200, required=False)
    labels = serializers.DictField(child=serializers.CharField(max_length=60), required=False)


class BatchIn(serializers.Serializer):
    vars()["source"] = serializers.CharField(
        max_length=32, help_text="Who tells: a name of your own, such as render-farm."
    )
    events = serializers.ListField(child=EventIn(), max_length=MOST_EVENTS)


class FaultOut(serializers.Serializer):
    pointer = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class ResultOut(serializers.Serializer):
    index = serializers.IntegerField()
    key = serializers.CharField()
    status = serializers.ChoiceField([(one.value, one.value) for one in Status])
    code = serializers.IntegerField(
        help_text="201 stored, 200 known already, 409 another payload, 422 not valid."
    )
    errors = FaultOut(many=True)  # type: ignore[assignment]


class BatchOut(serializers.Serializer):
    stored = serializers.IntegerField()
    duplicate = serializers.IntegerField()
    conflict = serializers.IntegerField()
    invalid = serializers.IntegerField()
    results = ResultOut(many=True)


class UsageEvents(APIView):
    parser_classes = [ExactJson]

    @extend_schema(
        summary="Record usage in batches: every event once, one result each",
        request=BatchIn,
        responses={200: BatchOut, 207: BatchOut},
        examples=[
            OpenApiExample(
                "One render",
                request_only=True,
                value={
                    "source": "render-farm",
                    "events": [
                        {"key": "frame-1", "meter": "train.gpu", "quantity": "12.5", "subject": "film_7"}
                    ],
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "usage.record")
        source, events = _batch(request.data)
        return answer(ingest(actor, source=source, events=events))


class BackfillIn(BatchIn):
    tenant = serializers.CharField(help_text="Public id of the tenant the usage is of.")
    reason = serializers.CharField(max_length=200, help_text="Why it comes so late; kept in the audit log.")


class UsageBackfill(APIView):
    parser_classes = [ExactJson]

    @extend_schema(
        summary="Bring in usage older than 35 days, for staff: it is a correction on the next invoice",
        request=BackfillIn,
        responses={200: BatchOut, 207: BatchOut},
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "invoices.finalize")
        body: Any = request.data
        source, events = _batch(body, "tenant", "reason")
        tenant, reason = body.get("tenant"), body.get("reason")
        faults = [
            Fault(f"/{name}", "required", _("This is a text."))
            for name, value in (("tenant", tenant), ("reason", reason))
            if type(value) is not str
        ]
        if faults:
            raise Invalid(_("This is not a batch of usage events."), faults=faults)
        return answer(backfill(actor, tenant=tenant, source=source, reason=reason, events=events))


def answer(results: list[Result]) -> Response:
    """One result per event: 200 where all of it is recorded now, 207 where the reader has to look at them."""
    counts = Counter(result.outcome for result in results)
    body = {
        **{status.value: counts[status] for status in Status},
        "results": [
            {
                "index": one.index,
                "key": one.key,
                "status": one.outcome.value,
                "code": one.outcome.code,
                "errors": [
                    {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail}
                    for fault in one.faults
                ],
            }
            for one in results
        ],
    }
    return Response(body, status=207 if counts[Status.CONFLICT] or counts[Status.INVALID] else 200)


def _batch(body: Any, *beside: str) -> tuple[str, list[Any]]:
    """Source and events of a body that has nothing else, but for the fields `beside`."""
    if not isinstance(body, dict):
        raise Invalid.at("/", "invalid", _("Send an object with source and events."))
    faults = [
        Fault(
            "/" + ascii(name)[1:-1][:60],
            "unknown_field",
            _("Known fields: %(known)s.") % {"known": ", ".join(("source", "events", *beside))},
        )
        for name in body.keys() - {"source", "events", *beside}
    ]
    source, events = body.get("source"), body.get("events")
    if type(source) is not str:
        faults.append(Fault("/source", "required", _("Say who tells: a name such as render-farm.")))
    if not isinstance(events, list):
        faults.append(Fault("/events", "required", _("Send a list of events.")))
    if faults or type(source) is not str or not isinstance(events, list):
        raise Invalid(_("This is not a batch of usage events."), faults=faults)
    return source, events
