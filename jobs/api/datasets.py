"""Datasets over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.jobs import bad_parameter
from jobs.api.shapes_datasets import (
    DatasetIn,
    DatasetOut,
    DatasetVersionDetail,
    DatasetVersionIn,
    DatasetVersionOut,
)
from jobs.models import Dataset, DatasetVersion
from jobs.services import datasets as service
from jobs.storage import naming_full_disk
from jobs.uploads import check_length
from tenants.actor import Actor
from tenants.api import Strict, actor_of
from tenants.permissions import require

ARCHIVED = OpenApiParameter(
    "archived", OpenApiTypes.BOOL, description="`true`: those that are archived, instead of those in use."
)


class DatasetList(generics.ListAPIView):
    serializer_class = DatasetOut
    parser_classes = [MultiPartParser]

    def get_queryset(self) -> QuerySet[Dataset]:
        return on_shelf(self.request, Dataset.objects.visible_to(actor_of(self.request)))

    @extend_schema(summary="List datasets that are in use", parameters=[ARCHIVED])
    def get(self, request: Request) -> Response:
        ensure_sees(actor_of(request), "datasets.view", self.get_queryset())
        page = self.paginate_queryset(self.get_queryset()) or []
        newest = DatasetVersion.objects.filter(dataset__in=page).select_related("dataset")
        newest = newest.order_by("dataset", "-number").distinct("dataset")
        latest = {version.dataset_id: version for version in newest}
        return self.get_paginated_response(DatasetOut(page, many=True, context={"latest": latest}).data)

    @extend_schema(
        summary="Upload a dataset",
        description="The file is looked at before it is kept: 422 names what is wrong at /file, row by row.",
        request={"multipart/form-data": DatasetIn},
        responses={201: DatasetOut},
    )
    def post(self, request: Request) -> Response:
        require(actor_of(request), "datasets.upload")
        version = service.create_dataset(actor_of(request), **received(request, DatasetIn))
        return Response(DatasetOut(version.dataset).data, status=201)


class DatasetDetail(APIView):
    @extend_schema(summary="Read one dataset", responses=DatasetOut)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(DatasetOut(find_dataset(request, public_id)).data)


class DatasetArchive(APIView):
    @extend_schema(
        summary="Take a dataset out of lists and new jobs",
        description="Its files are deleted after a grace of days that the installation sets (30); rows stay.",
        request=None,
        responses=DatasetOut,
    )
    def post(self, request: Request, public_id: str) -> Response:
        dataset = find_dataset(request, public_id)
        service.archive_dataset(actor_of(request), dataset)
        return Response(DatasetOut(dataset.reload()).data)


class DatasetRestore(APIView):
    @extend_schema(
        summary="Bring an archived dataset back",
        description="409 once its files are deleted, or if another dataset has its name now.",
        request=None,
        responses=DatasetOut,
    )
    def post(self, request: Request, public_id: str) -> Response:
        dataset = find_dataset(request, public_id)
        service.restore_dataset(actor_of(request), dataset)
        return Response(DatasetOut(dataset.reload()).data)


class DatasetVersionList(generics.ListAPIView):
    serializer_class = DatasetVersionOut
    parser_classes = [MultiPartParser]

    def get_queryset(self) -> QuerySet[DatasetVersion]:
        if getattr(self, "swagger_fake_view", False):
            return DatasetVersion.objects.none()
        dataset = find_dataset(self.request, self.kwargs["public_id"])
        return dataset.versions.select_related("dataset")

    @extend_schema(summary="List the versions of a dataset")
    def get(self, request: Request, public_id: str) -> Response:
        return self.list(request)

    @extend_schema(
        summary="Upload a new version",
        description="409 if it equals a version that is kept already.",
        request={"multipart/form-data": DatasetVersionIn},
        responses={201: DatasetVersionDetail},
    )
    def post(self, request: Request, public_id: str) -> Response:
        dataset = find_dataset(request, public_id)
        require(actor_of(request), "datasets.upload", dataset)
        version = service.add_version(actor_of(request), dataset, **received(request, DatasetVersionIn))
        return created(version)


class DatasetVersionOne(APIView):
    @extend_schema(summary="Read one version with its profile", responses=DatasetVersionDetail)
    def get(self, request: Request, public_id: str, version_id: str) -> Response:
        rows = find_dataset(request, public_id).versions.select_related("dataset")
        return Response(DatasetVersionDetail(get_object_or_404(rows, public_id=version_id)).data)


def find_dataset(request: Request, public_id: str) -> Dataset:
    rows = Dataset.objects.visible_to(actor_of(request)).select_related("tenant")
    return get_object_or_404(rows, public_id=public_id)


def on_shelf(request: Request, rows: QuerySet[Any]) -> QuerySet[Any]:
    """What is in use, or with ?archived=true what is archived."""
    given = request.query_params.get("archived", "false")
    if given not in ("true", "false"):
        raise bad_parameter("archived", _("One of %(known)s.") % {"known": "true, false"})
    return rows.filter(archived_at__isnull=given == "false")


def ensure_sees(actor: Actor, permission: str, rows: QuerySet[Any]) -> None:
    """Nothing to see is an empty list for those who may look, and a refusal for a colleague who may not."""
    if not actor.may(permission) and not rows.exists():
        require(actor, permission)


def received(request: Request, shape: type[Strict]) -> dict[str, Any]:
    """The checked fields of an upload; a body over the cap is refused before it is read."""
    check_length(request)
    with naming_full_disk():
        given = shape(data=request.data)
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def created(version: DatasetVersion) -> Response:
    return Response(DatasetVersionDetail(version).data, status=201)
