"""Shapes of the JSON of datasets and models."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from jobs.hints import hints
from jobs.models import Artifact, Dataset, DatasetVersion, Model, ModelVersion
from jobs.services.datasets import MAX_DESCRIPTION, MAX_NAME
from tenants.api import Strict


def _latest(shape: serializers.BaseSerializer, one: Dataset | Model) -> Any:
    """From what a list looked up for all its rows at once, else looked up for this one."""
    known = shape.context.get("latest")
    return one.latest if known is None else known.get(one.pk)


class DatasetVersionOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)
    dataset = serializers.CharField(source="dataset.public_id", read_only=True)
    problem_count = serializers.IntegerField(
        source="profile.problem_count",
        read_only=True,
        help_text="Rows that could not be used and are left out.",
    )

    class Meta:
        model = DatasetVersion
        fields = [
            "id", "dataset", "number", "format", "file_name", "sha256", "size_bytes", "row_count",
            "problem_count", "files_deleted_at", "created_at",
        ]  # fmt: skip


class DatasetVersionDetail(DatasetVersionOut):
    profile = serializers.JSONField(
        read_only=True, help_text="Columns or classes, the first 20 rows, and problems by row number."
    )

    hints = serializers.SerializerMethodField(
        help_text="What to look at, such as one bad number in a column."
    )

    class Meta(DatasetVersionOut.Meta):
        fields = [*DatasetVersionOut.Meta.fields, "profile", "hints"]

    def get_hints(self, version: DatasetVersion) -> list[dict[str, Any]]:
        return hints(version.profile)


class DatasetOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)
    latest = serializers.SerializerMethodField()

    class Meta:
        model = Dataset
        fields = ["id", "name", "description", "latest", "archived_at", "created_at"]

    def get_latest(self, dataset: Dataset) -> DatasetVersionOut(allow_null=True):  # type: ignore[valid-type]
        version = _latest(self, dataset)
        return DatasetVersionOut(version).data if version else None


class DatasetIn(Strict):
    name = serializers.CharField(max_length=MAX_NAME)
    file = serializers.FileField(
        allow_empty_file=True, help_text="CSV, JSON Lines, or a zip of images in class folders."
    )
    description = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=MAX_DESCRIPTION
    )


class DatasetVersionIn(Strict):
    file = serializers.FileField(allow_empty_file=True)


class ModelOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)
    latest = serializers.SerializerMethodField(help_text="The chosen variant of the newest run.")

    class Meta:
        model = Model
        fields = ["id", "name", "recipe", "latest", "archived_at", "created_at"]

    def get_latest(self, model: Model) -> str | None:
        version = _latest(self, model)
        return version.public_id if version else None


class ModelVersionOut(serializers.ModelSerializer):
    id = serializers.CharField(source="public_id", read_only=True)
    model = serializers.CharField(source="model.public_id", read_only=True)
    parent = serializers.CharField(  # type: ignore[assignment]  # DRF's own attribute of this name is another
        source="parent.public_id", read_only=True, allow_null=True, default=None
    )
    job = serializers.CharField(source="job.public_id", read_only=True)
    dataset_version = serializers.CharField(source="dataset_version.public_id", read_only=True)

    class Meta:
        model = ModelVersion
        fields = [
            "id", "model", "number", "variant", "parent", "is_chosen", "passed_gate", "accuracy",
            "size_bytes", "latency_p50_ms", "latency_p95_ms", "job", "dataset_version", "archived_at",
            "files_deleted_at", "created_at",
        ]  # fmt: skip


class ArtifactOut(serializers.ModelSerializer):
    class Meta:
        model = Artifact
        fields = ["name", "size_bytes", "sha256"]


class ModelVersionDetail(ModelVersionOut):
    report = serializers.JSONField(
        read_only=True, help_text="What this variant measured on the held-out rows."
    )
    run = serializers.JSONField(source="manifest", read_only=True, help_text="The run it came from.")
    interface = serializers.SerializerMethodField(help_text="Inputs, outputs, classes and one sample row.")
    artifacts = ArtifactOut(many=True, read_only=True)

    class Meta(ModelVersionOut.Meta):
        fields = [*ModelVersionOut.Meta.fields, "report", "run", "interface", "artifacts"]

    def get_interface(self, version: ModelVersion) -> dict[str, Any]:
        return {key: version.interface.get(key) for key in ("inputs", "outputs", "classes", "sample")}
