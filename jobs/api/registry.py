"""Models, versions and files over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs.api.datasets import ARCHIVED, ensure_sees, on_shelf
from jobs.api.shapes_datasets import ModelOut, ModelVersionDetail, ModelVersionOut
from jobs.models import Artifact, Model, ModelVersion
from jobs.services import shelf
from jobs.streams import send_artifact
from tenants.api import actor_of


class ModelList(generics.ListAPIView):
    serializer_class = ModelOut

    def get_queryset(self) -> QuerySet[Model]:
        return on_shelf(self.request, Model.objects.visible_to(actor_of(self.request)))

    @extend_schema(summary="List models that are in use", parameters=[ARCHIVED])
    def get(self, request: Request) -> Response:
        ensure_sees(actor_of(request), "models.view", self.get_queryset())
        page = self.paginate_queryset(self.get_queryset()) or []
        newest = ModelVersion.objects.filter(model__in=page, is_chosen=True, archived_at=None)
        newest = newest.only("public_id", "model_id").order_by("model", "-number").distinct("model")
        latest = {version.model_id: version for version in newest}
        return self.get_paginated_response(ModelOut(page, many=True, context={"latest": latest}).data)


class ModelDetail(APIView):
    @extend_schema(summary="Read one model", responses=ModelOut)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(ModelOut(find_model(request, public_id)).data)


class ModelArchive(APIView):
    @extend_schema(
        summary="Take a model out of lists and new endpoints",
        description="409 while an endpoint that is not stopped holds a version of it. Its files are deleted after "
        "a grace of days that the installation sets (30); reports stay.",
        request=None,
        responses=ModelOut,
    )
    def post(self, request: Request, public_id: str) -> Response:
        model = find_model(request, public_id)
        shelf.archive_model(actor_of(request), model)
        return Response(ModelOut(model.reload()).data)


class ModelRestore(APIView):
    @extend_schema(
        summary="Bring an archived model back",
        description="409 once its files are deleted, or if another model has its name now.",
        request=None,
        responses=ModelOut,
    )
    def post(self, request: Request, public_id: str) -> Response:
        model = find_model(request, public_id)
        shelf.restore_model(actor_of(request), model)
        return Response(ModelOut(model.reload()).data)


class ModelVersionList(generics.ListAPIView):
    serializer_class = ModelVersionOut

    def get_queryset(self) -> QuerySet[ModelVersion]:
        if getattr(self, "swagger_fake_view", False):
            return ModelVersion.objects.none()
        model = find_model(self.request, self.kwargs["public_id"])
        return model.versions.select_related("model", "job", "dataset_version", "parent").defer("interface")

    @extend_schema(summary="List the versions of a model: every variant of every run")
    def get(self, request: Request, public_id: str) -> Response:
        return self.list(request)


class VersionDetail(APIView):
    @extend_schema(summary="Read one version with its report and files", responses=ModelVersionDetail)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(ModelVersionDetail(find_version(request, public_id)).data)


class VersionArchive(APIView):
    @extend_schema(
        summary="Archive one version of a model: all variants of its run",
        description="409 while an endpoint that is not stopped holds one of them. The files are deleted after the "
        "same grace as those of a model.",
        request=None,
        responses=ModelVersionDetail,
    )
    def post(self, request: Request, public_id: str) -> Response:
        shelf.archive_version(actor_of(request), find_version(request, public_id))
        return Response(ModelVersionDetail(find_version(request, public_id)).data)


class VersionRestore(APIView):
    @extend_schema(
        summary="Bring an archived version back, with all variants of its run",
        description="409 once the files are deleted, and while the model is archived as a whole.",
        request=None,
        responses=ModelVersionDetail,
    )
    def post(self, request: Request, public_id: str) -> Response:
        shelf.restore_version(actor_of(request), find_version(request, public_id))
        return Response(ModelVersionDetail(find_version(request, public_id)).data)


class ArtifactDownload(APIView):
    @extend_schema(
        summary="Download one file of a version",
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, public_id: str, name: str) -> Any:
        rows = Artifact.objects.visible_to(actor_of(request)).select_related("tenant", "version__model")
        artifact = get_object_or_404(rows, version__public_id=public_id, name=name)
        answer: HttpResponseBase = send_artifact(request._request, actor_of(request), artifact)
        return answer


def find_model(request: Request, public_id: str) -> Model:
    rows = Model.objects.visible_to(actor_of(request)).select_related("tenant")
    return get_object_or_404(rows, public_id=public_id)


def find_version(request: Request, public_id: str) -> ModelVersion:
    rows = ModelVersion.objects.visible_to(actor_of(request)).select_related(
        "model", "job", "dataset_version", "parent"
    )
    return get_object_or_404(rows, public_id=public_id)
