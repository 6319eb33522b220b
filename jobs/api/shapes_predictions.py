"""Shapes of the JSON of batch predictions. PredictionSpec.parse reads the spec; here it is described."""

from __future__ import annotations

from rest_framework import serializers

from jobs.api.shapes_jobs import LimitsIn
from tenants.api import Strict


class BatchPredictionIn(serializers.Serializer):
    model_version = serializers.CharField(help_text="ver_…, the version that answers.")
    dataset = serializers.CharField(help_text="ds_… for the newest version, dsv_… for that one.")
    name = serializers.CharField(required=False, max_length=120, help_text="Left out: model and dataset.")
    columns = serializers.DictField(
        child=serializers.CharField(),
        required=False,
        help_text="Input of the model -> column of the dataset, for those that are called otherwise.",
    )
    keep = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Columns of the dataset that are copied beside the answers, such as an id.",
    )
    limits = LimitsIn(required=False)
    labels = serializers.DictField(
        child=serializers.CharField(max_length=63),
        required=False,
        help_text="At most 10, such as team: vision.",
    )


class NewDatasetIn(Strict):
    name = serializers.CharField(max_length=120)
