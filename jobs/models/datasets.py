"""Datasets and their frozen versions."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from tenants.models import PublicIdField, TenantOwned


class DatasetFormat(models.TextChoices):
    CSV = "csv", _("CSV table")
    JSONL = "jsonl", _("JSON Lines")
    IMAGES = "images", _("Images in class folders")


class Dataset(TenantOwned):
    """A named body of data; what jobs use are its versions."""

    NOUN: ClassVar[str] = "datasets"

    public_id = PublicIdField("ds")
    name = models.CharField(_("name"), max_length=120)
    description = models.TextField(_("description"), blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                "tenant",
                Lower("name"),
                condition=Q(archived_at=None),
                name="one_dataset_per_name_in_a_tenant",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("jobs:dataset_detail", args=[self.public_id])

    @property
    def latest(self) -> DatasetVersion | None:
        return self.versions.order_by("-number").first()


class DatasetVersion(TenantOwned):
    """One upload, validated and frozen: never changed after it was made.

    `profile` is what a job needs to know without reading the data::

        {"columns": [{"name", "type": "number|text|boolean", "missing": int, "distinct": int | null,
                      "top": [[value, count], ...] (at most 50), "min": number?, "max": number?}],
         "classes": {"cat": 120, ...} (images only), "image": {"width", "height", "channels"} (images only),
         "preview": [first 20 rows] , "problems": [{"row": int, "reason": str}], "problem_count": int}
    """

    SEEN_THROUGH: ClassVar[str | None] = "dataset"

    public_id = PublicIdField("dsv")
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    format = models.CharField(max_length=10, choices=DatasetFormat.choices)
    file_name = models.CharField(max_length=200)  # as uploaded, shown only
    storage_key = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)  # of the bytes as uploaded
    size_bytes = models.PositiveBigIntegerField()
    row_count = models.PositiveBigIntegerField()  # good rows; bad ones are named in the profile and left out
    profile = models.JSONField(default=dict)
    files_deleted_at = models.DateTimeField(null=True, blank=True)  # some time after it was archived
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "number"], name="one_dataset_version_per_number"),
        ]

    def __str__(self) -> str:
        return f"{self.dataset.name} v{self.number}"
