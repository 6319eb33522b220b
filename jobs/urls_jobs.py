"""Pages and API routes of jobs."""

from __future__ import annotations

from django.urls import URLPattern, path

from jobs.api import jobs as api
from jobs.api import predictions as predictions_api
from jobs.api.grants import GrantList
from jobs.models import Job
from jobs.views import jobs as views
from jobs.views import predictions

urlpatterns: list[URLPattern] = [
    path("jobs/", views.job_list, name="job_list"),
    path("jobs/new", views.job_new, name="job_new"),
    path("jobs/new/data", views.job_new_data, name="job_new_data"),
    path("jobs/new/price", views.job_new_price, name="job_new_price"),
    path("jobs/predict", predictions.prediction_new, name="prediction_new"),
    path("jobs/predict/fields", predictions.prediction_fields, name="prediction_fields"),
    path("jobs/predict/price", predictions.prediction_price, name="prediction_price"),
    path("jobs/<str:public_id>", views.job_detail, name="job_detail"),
    path("jobs/<str:public_id>/files/remove", predictions.job_files_remove, name="job_files_remove"),
    path("jobs/<str:public_id>/files/<str:name>", predictions.job_file, name="job_file"),
    path(
        "jobs/<str:public_id>/files/<str:name>/dataset", predictions.job_file_dataset, name="job_file_dataset"
    ),
    path("jobs/<str:public_id>/outcome", views.job_outcome, name="job_outcome"),
    path("jobs/<str:public_id>/tensorboard", views.job_tensorboard, name="job_tensorboard"),
    path("jobs/<str:public_id>/cancel", views.job_cancel, name="job_cancel"),
    path("jobs/<str:public_id>/share", views.job_share, name="job_share"),
    path("jobs/<str:public_id>/unshare", views.job_unshare, name="job_unshare"),
    path("jobs/<str:public_id>/clone", views.job_clone, name="job_clone"),
]
api_urlpatterns: list[URLPattern] = [
    path("jobs", api.JobList.as_view(), name="job-list"),
    path("jobs/estimate", api.JobEstimate.as_view(), name="job-estimate"),
    path("jobs/<str:public_id>", api.JobDetail.as_view(), name="job-detail"),
    path("jobs/<str:public_id>/files/<str:name>", predictions_api.JobFileDownload.as_view(), name="job-file"),
    path(
        "jobs/<str:public_id>/files/<str:name>/dataset",
        predictions_api.JobFileDataset.as_view(),
        name="job-file-dataset",
    ),
    path("jobs/<str:public_id>/files", predictions_api.JobFiles.as_view(), name="job-files"),
    path("batch-predictions", predictions_api.BatchPredictionList.as_view(), name="batch-prediction-list"),
    path(
        "batch-predictions/estimate",
        predictions_api.BatchPredictionEstimate.as_view(),
        name="batch-prediction-estimate",
    ),
    path("jobs/<str:public_id>/cancel", api.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<str:public_id>/grants", GrantList.as_view(model=Job), name="job-grants"),
    path("jobs/<str:public_id>/events", api.JobEvents.as_view(), name="job-events"),
    path("jobs/<str:public_id>/tensorboard", api.JobTensorboard.as_view(), name="job-tensorboard"),
]
