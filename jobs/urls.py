"""Pages and API routes of this app, by noun."""

from __future__ import annotations

from jobs import urls_datasets, urls_endpoints, urls_jobs, urls_traffic

app_name = "jobs"
urlpatterns = [
    *urls_datasets.urlpatterns,
    *urls_jobs.urlpatterns,
    *urls_endpoints.urlpatterns,
    *urls_traffic.urlpatterns,
]
api_urlpatterns = [
    *urls_datasets.api_urlpatterns,
    *urls_jobs.api_urlpatterns,
    *urls_endpoints.api_urlpatterns,
    *urls_traffic.api_urlpatterns,
]
