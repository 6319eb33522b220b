"""Pages and API routes of endpoints."""

from __future__ import annotations

from django.urls import path

from jobs.api import endpoints as api
from jobs.api.grants import GrantList
from jobs.api.keys import KeyDetail, KeyList
from jobs.models import Endpoint
from jobs.views import endpoints, keys

urlpatterns = [
    path("endpoints/", endpoints.endpoint_list, name="endpoint_list"),
    path("endpoints/new", endpoints.endpoint_new, name="endpoint_new"),
    path("endpoints/<slug:public_id>", endpoints.endpoint_detail, name="endpoint_detail"),
    path("endpoints/<slug:public_id>/status", endpoints.endpoint_status, name="endpoint_status"),
    path("endpoints/<slug:public_id>/try", endpoints.endpoint_try, name="endpoint_try"),
    path("endpoints/<slug:public_id>/revise", endpoints.endpoint_revise, name="endpoint_revise"),
    path("endpoints/<slug:public_id>/settings", endpoints.endpoint_settings, name="endpoint_settings"),
    path("endpoints/<slug:public_id>/share", endpoints.endpoint_share, name="endpoint_share"),
    path("endpoints/<slug:public_id>/unshare", endpoints.endpoint_unshare, name="endpoint_unshare"),
    path("endpoints/<slug:public_id>/stop", endpoints.endpoint_stop, name="endpoint_stop"),
    path("endpoints/<slug:public_id>/start", endpoints.endpoint_start, name="endpoint_start"),
    path("endpoints/<slug:public_id>/keys", keys.endpoint_keys, name="endpoint_keys"),
    path(
        "endpoints/<slug:public_id>/keys/<slug:key>/revoke",
        keys.endpoint_key_revoke,
        name="endpoint_key_revoke",
    ),
]
api_urlpatterns = [
    path("endpoints", api.EndpointList.as_view(), name="endpoint-list"),
    path("endpoints/<slug:public_id>", api.EndpointDetail.as_view(), name="endpoint-detail"),
    path("endpoints/<slug:public_id>/start", api.EndpointStart.as_view(), name="endpoint-start"),
    path("endpoints/<slug:public_id>/revisions", api.RevisionList.as_view(), name="endpoint-revisions"),
    path("endpoints/<slug:public_id>/grants", GrantList.as_view(model=Endpoint), name="endpoint-grants"),
    path("endpoints/<slug:public_id>/keys", KeyList.as_view(), name="endpoint-keys"),
    path("endpoints/<slug:public_id>/keys/<slug:key>", KeyDetail.as_view(), name="endpoint-key"),
]
