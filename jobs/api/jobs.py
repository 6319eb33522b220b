"""Jobs over REST."""

from __future__ import annotations

from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.shapes_jobs import EstimateOut, EventsOut, JobIn, JobOut, estimate_row
from jobs.models import Job, JobEvent, ModelVersion
from jobs.services import exports, progress
from jobs.services import jobs as service
from jobs.specs import JobSpec
from jobs.states import JobStatus
from tenants.api import actor_of
from tenants.errors import Fault, Refused
from tenants.permissions import require

MOST_EVENTS = 1000
_PAGING = {"limit", "cursor"}


class BadParameter(Refused):
    """A parameter of the address is not known or not valid."""

    status = 400
    code = "bad_parameter"


class JobList(generics.ListAPIView):
    serializer_class = JobOut

    def get_queryset(self) -> QuerySet[Job]:
        params = self.request.query_params
        rows = service.search_jobs(
            actor_of(self.request), text=params.get("q", ""), label=params.get("label", "")
        )
        if status := params.get("status"):
            if status not in JobStatus.values:
                raise bad_parameter("status", _("One of %(known)s.") % {"known": ", ".join(JobStatus.values)})
            rows = rows.filter(status=status)
        chosen = ModelVersion.objects.filter(is_chosen=True).select_related("model")
        made = Prefetch("model_versions", queryset=chosen, to_attr="chosen_versions")
        return rows.prefetch_related(made, "files").annotate(attempt_count=Count("attempts"))

    @extend_schema(
        summary="List jobs, newest first",
        parameters=[
            OpenApiParameter("status", OpenApiTypes.STR, enum=JobStatus.values),
            OpenApiParameter("q", OpenApiTypes.STR, description="Part of the name or recipe, or a whole id."),
            OpenApiParameter(
                "label", OpenApiTypes.STR, description="`team=vision`; `team`: any value of it."
            ),
        ],
    )
    def get(self, request: Request) -> Response:
        refuse_unknown(request, {"status", "q", "label"} | _PAGING)
        actor = actor_of(request)
        if not actor.may("jobs.view") and not Job.objects.visible_to(actor).exists():
            require(actor, "jobs.view")
        page = self.paginate_queryset(self.get_queryset()) or []
        shown = JobOut(page, many=True, context={"costs": service.costs_of(page)})
        return self.get_paginated_response(shown.data)

    @extend_schema(
        summary="Submit a job",
        description="Every fault of the spec is named at once, each with a pointer.",
        request=JobIn,
        responses={201: JobOut},
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "jobs.submit")
        job = service.submit_job(actor, JobSpec.parse(actor, request.data))
        return Response(JobOut(job).data, status=201)


class JobEstimate(APIView):
    @extend_schema(
        summary="Ask what a job would cost, without submitting it",
        request=JobIn,
        responses=EstimateOut,
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "jobs.submit")
        return Response(estimate_row(service.estimate_job(actor, JobSpec.parse(actor, request.data))))


class JobDetail(APIView):
    @extend_schema(summary="Read one job", responses=JobOut)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(JobOut(find_job(request, public_id)).data)


class JobCancel(APIView):
    @extend_schema(
        summary="Stop a job: at once while it waits, within ten seconds while it runs",
        request=None,
        responses=JobOut,
    )
    def post(self, request: Request, public_id: str) -> Response:
        job = find_job(request, public_id)
        return Response(JobOut(service.cancel_job(actor_of(request), job)).data)


class JobEvents(APIView):
    @extend_schema(
        summary="Read the numbered stream of a job, from any number on",
        parameters=[
            OpenApiParameter(
                "after", OpenApiTypes.INT, description="The last number you have; 0 or left out: all."
            ),
            OpenApiParameter("limit", OpenApiTypes.INT, description=f"At most {MOST_EVENTS}; usually 200."),
        ],
        responses=EventsOut,
    )
    def get(self, request: Request, public_id: str) -> Response:
        refuse_unknown(request, {"after", "limit"})
        job = find_job(request, public_id)
        after = whole(request, "after", usual=0, most=2**53)
        limit = whole(request, "limit", usual=200, least=1, most=MOST_EVENTS)
        rows = list(JobEvent.objects.filter(job=job, seq__gt=after).order_by("seq")[:limit])
        last = rows[-1].seq if rows else after
        more = last < job.last_seq
        data = [progress.event_row(row) for row in rows]
        body = {"data": data, "has_more": more, "next_cursor": str(last) if more else None, "last_seq": last}
        return Response(body)


class JobTensorboard(APIView):
    @extend_schema(
        summary="Download the metrics of a job as a file that TensorBoard opens",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, public_id: str) -> HttpResponse:
        return exports.download(find_job(request, public_id))


def find_job(request: Request, public_id: str) -> Job:
    rows = Job.objects.visible_to(actor_of(request)).select_related("tenant", "created_by", "dataset_version")
    return get_object_or_404(rows, public_id=public_id)


def refuse_unknown(request: Request, known: set[str]) -> None:
    """A misspelt filter must not silently list everything."""
    for name in request.query_params:
        if name not in known:
            text = _("This parameter is not known. Known: %(known)s.") % {"known": ", ".join(sorted(known))}
            raise bad_parameter(name, text)


def whole(request: Request, name: str, *, usual: int, least: int = 0, most: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return usual
    plain = given.isascii() and given.isdigit() and len(given) < 20
    if not plain or not least <= int(given) <= most:
        raise bad_parameter(
            name, _("A whole number from %(least)s to %(most)s.") % {"least": least, "most": most}
        )
    return int(given)


def bad_parameter(name: str, detail: str) -> BadParameter:
    return BadParameter(f"?{name}=: {detail}", faults=[Fault(f"?{name}", "bad_parameter", detail)])
