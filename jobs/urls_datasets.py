"""Pages and API routes of datasets and models."""

from __future__ import annotations

from django.urls import path

from jobs.api import datasets as datasets_api
from jobs.api import registry as registry_api
from jobs.api.grants import GrantList
from jobs.models import Dataset, Model
from jobs.views import datasets, registry

urlpatterns = [
    path("datasets/", datasets.dataset_list, name="dataset_list"),
    path("datasets/new", datasets.dataset_new, name="dataset_new"),
    path("datasets/<slug:public_id>", datasets.dataset_detail, name="dataset_detail"),
    path("datasets/<slug:public_id>/upload", datasets.dataset_upload, name="dataset_upload"),
    path("datasets/<slug:public_id>/archive", datasets.dataset_archive, name="dataset_archive"),
    path("datasets/<slug:public_id>/restore", datasets.dataset_restore, name="dataset_restore"),
    path("datasets/<slug:public_id>/share", datasets.dataset_share, name="dataset_share"),
    path("datasets/<slug:public_id>/unshare", datasets.dataset_unshare, name="dataset_unshare"),
    path(
        "datasets/<slug:public_id>/versions/<slug:version_id>/thumbnails/<int:number>.png",
        datasets.dataset_thumbnail,
        name="dataset_thumbnail",
    ),
    path("models/", registry.model_list, name="model_list"),
    path("models/<slug:public_id>", registry.model_detail, name="model_detail"),
    path("models/<slug:public_id>/archive", registry.model_archive, name="model_archive"),
    path("models/<slug:public_id>/restore", registry.model_restore, name="model_restore"),
    path("models/<slug:public_id>/share", registry.model_share, name="model_share"),
    path("models/<slug:public_id>/unshare", registry.model_unshare, name="model_unshare"),
    path(
        "models/<slug:public_id>/versions/<slug:version_id>", registry.version_detail, name="version_detail"
    ),
    path(
        "models/<slug:public_id>/versions/<slug:version_id>/archive",
        registry.version_archive,
        name="version_archive",
    ),
    path(
        "models/<slug:public_id>/versions/<slug:version_id>/restore",
        registry.version_restore,
        name="version_restore",
    ),
    path(
        "models/<slug:public_id>/versions/<slug:version_id>/files/<str:name>",
        registry.artifact_download,
        name="artifact_download",
    ),
]
api_urlpatterns = [
    path("datasets", datasets_api.DatasetList.as_view(), name="dataset-list"),
    path("datasets/<slug:public_id>", datasets_api.DatasetDetail.as_view(), name="dataset-detail"),
    path("datasets/<slug:public_id>/archive", datasets_api.DatasetArchive.as_view(), name="dataset-archive"),
    path("datasets/<slug:public_id>/restore", datasets_api.DatasetRestore.as_view(), name="dataset-restore"),
    path(
        "datasets/<slug:public_id>/versions",
        datasets_api.DatasetVersionList.as_view(),
        name="dataset-version-list",
    ),
    path(
        "datasets/<slug:public_id>/versions/<slug:version_id>",
        datasets_api.DatasetVersionOne.as_view(),
        name="dataset-version-detail",
    ),
    path("datasets/<slug:public_id>/grants", GrantList.as_view(model=Dataset), name="dataset-grants"),
    path("models", registry_api.ModelList.as_view(), name="model-list"),
    path("models/<slug:public_id>", registry_api.ModelDetail.as_view(), name="model-detail"),
    path("models/<slug:public_id>/archive", registry_api.ModelArchive.as_view(), name="model-archive"),
    path("models/<slug:public_id>/restore", registry_api.ModelRestore.as_view(), name="model-restore"),
    path(
        "models/<slug:public_id>/versions", registry_api.ModelVersionList.as_view(), name="model-version-list"
    ),
    path("models/<slug:public_id>/grants", GrantList.as_view(model=Model), name="model-grants"),
    path("versions/<slug:public_id>", registry_api.VersionDetail.as_view(), name="version-detail"),
    path("versions/<slug:public_id>/archive", registry_api.VersionArchive.as_view(), name="version-archive"),
    path("versions/<slug:public_id>/restore", registry_api.VersionRestore.as_view(), name="version-restore"),
    path(
        "versions/<slug:public_id>/artifacts/<str:name>",
        registry_api.ArtifactDownload.as_view(),
        name="artifact-detail",
    ),
]
