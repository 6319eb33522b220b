"""Batch predictions over REST. What is submitted here is a job: it is watched, stopped and paid for as one."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.jobs import JobList, find_job
from jobs.api.shapes_datasets import DatasetOut
from jobs.api.shapes_jobs import EstimateOut, JobOut, estimate_row
from jobs.api.shapes_predictions import BatchPredictionIn, NewDatasetIn
from jobs.models import Job
from jobs.services import job_files
from jobs.services import predictions as service
from jobs.specs_predictions import PredictionSpec
from jobs.states import JobKind, JobStatus
from jobs.streams import send_job_file
from tenants.api import actor_of
from tenants.permissions import require


class BatchPredictionList(JobList):
    def get_queryset(self) -> QuerySet[Job]:
        return super().get_queryset().filter(kind=JobKind.PREDICTION)

    @extend_schema(
        summary="List batch predictions, newest first",
        parameters=[
            OpenApiParameter("status", OpenApiTypes.STR, enum=JobStatus.values),
            OpenApiParameter("q", OpenApiTypes.STR, description="Part of the name or recipe, or a whole id."),
        ],
    )
    def get(self, request: Request) -> Response:
        return super().get(request)

    @extend_schema(
        summary="Predict over a dataset",
        description=(
            "A job that asks a model version for every row of a dataset version and leaves predictions.csv and "
            "predictions.jsonl. Every fault is named at once, each with a pointer, before anything runs. Watch, "
            "stop and read it as any job, by its id."
        ),
        request=BatchPredictionIn,
        responses={201: JobOut},
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "jobs.submit")
        job = service.submit_predictions(actor, PredictionSpec.parse(actor, request.data))
        return Response(JobOut(job).data, status=201)


class BatchPredictionEstimate(APIView):
    @extend_schema(
        summary="Ask what a batch prediction would cost, without submitting it",
        request=BatchPredictionIn,
        responses=EstimateOut,
    )
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        require(actor, "jobs.submit")
        spec = PredictionSpec.parse(actor, request.data)
        return Response(estimate_row(service.estimate_predictions(actor, spec)))


class JobFileDownload(APIView):
    @extend_schema(
        summary="Download one file that a job left",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, public_id: str, name: str) -> HttpResponseBase:
        actor = actor_of(request)
        return send_job_file(request._request, actor, job_files.find_file(actor, public_id, name))


class JobFileDataset(APIView):
    @extend_schema(
        summary="Make a dataset of a file that a job left",
        request=NewDatasetIn,
        responses={201: DatasetOut},
    )
    def post(self, request: Request, public_id: str, name: str) -> Response:
        actor = actor_of(request)
        file = job_files.find_file(actor, public_id, name)
        said = NewDatasetIn(data=request.data)
        said.is_valid(raise_exception=True)
        version = job_files.save_as_dataset(actor, file, name=said.validated_data["name"])
        return Response(DatasetOut(version.dataset).data, status=201)


class JobFiles(APIView):
    @extend_schema(summary="Delete the files that a job left", request=None, responses={204: None})
    def delete(self, request: Request, public_id: str) -> Response:
        job_files.remove_files(actor_of(request), find_job(request, public_id))
        return Response(status=204)
