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

from jobs.api.datasets import ensure_sees
from jobs.api.shapes_datasets import ModelOut, ModelVersionDetail, ModelVersionOut
from jobs.models import Artifact, Model, ModelVersion
from jobs.streams import send_artifact
from tenants.api import actor_of


class ModelList(generics.ListAPIView):
    serializer_class = ModelOut

    def get_queryset(self) -> QuerySet[Model]:
        return Model.objects.visible_to(actor_of(self.request))

    @extend_schema(summary="List models")
    def get(self, request: Request) -> Response:
        ensure_sees(actor_of(request), "models.view", self.get_queryset())
        page = self.paginate_queryset(self.get_queryset()) or []
        newest = ModelVersion.objects.filter(model__in=page, is_chosen=True).only("public_id", "model_id")
        newest = newest.order_by("model", "-number").distinct("model")
        latest = {version.model_id: version for version in newest}
        return self.get_paginated_response(ModelOut(page, many=True, context={"latest": latest}).data)


class ModelDetail(APIView):
    @extend_schema(summary="Read one model", responses=ModelOut)
    def get(self, request: Request, public_id: str) -> Response:
        rows = Model.objects.visible_to(actor_of(request))
        return Response(ModelOut(get_object_or_404(rows, public_id=public_id)).data)


class ModelVersionList(generics.ListAPIView):
    serializer_class = ModelVersionOut

    def get_queryset(self) -> QuerySet[ModelVersion]:
        if getattr(self, "swagger_fake_view", False):
            return ModelVersion.objects.none()
        rows = Model.objects.visible_to(actor_of(self.request))
        model = get_object_or_404(rows, public_id=self.kwargs["public_id"])
        return model.versions.select_related("model", "job", "dataset_version", "parent").defer("interface")

    @extend_schema(summary="List the versions of a model: every variant of every run")
    def get(self, request: Request, public_id: str) -> Response:
        return self.list(request)


class VersionDetail(APIView):
    @extend_schema(summary="Read one version with its report and files", responses=ModelVersionDetail)
    def get(self, request: Request, public_id: str) -> Response:
        rows = ModelVersion.objects.visible_to(actor_of(request)).select_related(
            "model", "job", "dataset_version", "parent"
        )
        return Response(ModelVersionDetail(get_object_or_404(rows, public_id=public_id)).data)


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
