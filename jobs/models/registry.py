"""Models, their versions (one row a variant) and files."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from jobs.models.datasets import DatasetVersion
from jobs.models.jobs import Job
from tenants.models import PublicIdField, TenantOwned, VisibleQuerySet


class Model(TenantOwned):
    """A named line of versions, each made by a job."""

    NOUN: ClassVar[str] = "models"

    public_id = PublicIdField("mdl")
    name = models.CharField(_("name"), max_length=120)
    recipe = models.CharField(max_length=40)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        permissions = [("download_model", "Can download model"), ("share_model", "Can share model")]
        constraints = [
            models.UniqueConstraint(
                "tenant",
                Lower("name"),
                condition=Q(archived_at=None),
                name="one_model_per_name_in_a_tenant",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("jobs:model_detail", args=[self.public_id])

    @property
    def latest(self) -> ModelVersion | None:
        """The chosen variant of the newest run that is not archived."""
        return self.versions.filter(is_chosen=True, archived_at=None).order_by("-number").first()


class ModelVersionQuerySet(VisibleQuerySet):
    def in_use(self) -> Self:
        """Neither archived themselves nor with their model."""
        return self.filter(archived_at=None, model__archived_at=None)


class ModelVersion(TenantOwned):
    """One variant of one run: the original, or a compressed child of it, with what it measured on held-out rows."""

    SEEN_THROUGH: ClassVar[str | None] = "model"

    public_id = PublicIdField("ver")
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()  # the run: all variants of one job share it
    variant = models.CharField(max_length=40)  # "original", "int8", "prune", ...
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="model_versions")
    dataset_version = models.ForeignKey(
        DatasetVersion, on_delete=models.PROTECT, related_name="model_versions"
    )
    is_chosen = models.BooleanField(default=False)  # the gate's pick
    passed_gate = models.BooleanField()
    accuracy = models.FloatField()
    size_bytes = models.PositiveBigIntegerField()
    latency_p50_ms = models.FloatField()
    latency_p95_ms = models.FloatField()
    report = models.JSONField()  # trainer.contract.VariantReport
    manifest = models.JSONField()  # trainer.contract.Manifest of the whole run, without the variants
    interface = models.JSONField()  # bundle.json: inputs, outputs, classes, sample
    archived_at = models.DateTimeField(null=True, blank=True)  # all variants of a run together
    files_deleted_at = models.DateTimeField(null=True, blank=True)  # some time after it was archived

    objects = ModelVersionQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        ordering = ["-number", "variant"]
        constraints = [
            models.UniqueConstraint(fields=["model", "number", "variant"], name="one_version_per_variant"),
            models.UniqueConstraint(
                fields=["model", "number"], condition=Q(is_chosen=True), name="one_chosen_variant_per_run"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number} {self.variant}"

    def get_absolute_url(self) -> str:
        return reverse("jobs:version_detail", args=[self.model.public_id, self.public_id])

    @property
    def shelved_at(self) -> datetime | None:
        """Since when it is archived, by itself or with its model; None while it is in use."""
        return min(filter(None, (self.archived_at, self.model.archived_at)), default=None)


class Artifact(TenantOwned):
    """One encrypted file of a version."""

    SEEN_THROUGH: ClassVar[str | None] = "version"

    public_id = PublicIdField("art")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="artifacts")
    name = models.CharField(max_length=80)  # "model.onnx"
    storage_key = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    size_bytes = models.PositiveBigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "name"], name="one_artifact_per_name")]

    def __str__(self) -> str:
        return self.name
