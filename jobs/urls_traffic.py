"""Pages and API routes of how endpoints do."""

from __future__ import annotations

from django.urls import path

from jobs.api import alerts as alerts_api
from jobs.api import drift as drift_api
from jobs.api import requests as requests_api
from jobs.api import traffic as api
from jobs.views import alerts, drift, requests, traffic

urlpatterns = [
    path("endpoints/<slug:public_id>/traffic", traffic.endpoint_traffic, name="endpoint_traffic"),
    path("endpoints/<slug:public_id>/traffic/now", traffic.endpoint_traffic_now, name="endpoint_traffic_now"),
    path("endpoints/<slug:public_id>/scaling", traffic.endpoint_scaling, name="endpoint_scaling"),
    path("endpoints/<slug:public_id>/guard", traffic.endpoint_guard, name="endpoint_guard"),
    path("endpoints/<slug:public_id>/canary", traffic.endpoint_canary, name="endpoint_canary"),
    path("endpoints/<slug:public_id>/promote", traffic.endpoint_promote, name="endpoint_promote"),
    path("endpoints/<slug:public_id>/rollback", traffic.endpoint_rollback, name="endpoint_rollback"),
    path("endpoints/<slug:public_id>/shadow", traffic.endpoint_shadow, name="endpoint_shadow"),
    path("endpoints/<slug:public_id>/alerts", alerts.endpoint_alerts, name="endpoint_alerts"),
    path(
        "endpoints/<slug:public_id>/alerts/<slug:alert>/remove",
        alerts.endpoint_alert_remove,
        name="endpoint_alert_remove",
    ),
    path("endpoints/<slug:public_id>/drift", drift.endpoint_drift, name="endpoint_drift"),
    path("endpoints/<slug:public_id>/requests", requests.endpoint_requests, name="endpoint_requests"),
    path(
        "endpoints/<slug:public_id>/requests/export",
        requests.endpoint_requests_export,
        name="endpoint_requests_export",
    ),
]
api_urlpatterns = [
    path("endpoints/<slug:public_id>/canary", api.EndpointCanary.as_view(), name="endpoint-canary"),
    path("endpoints/<slug:public_id>/promote", api.EndpointPromote.as_view(), name="endpoint-promote"),
    path("endpoints/<slug:public_id>/rollback", api.EndpointRollback.as_view(), name="endpoint-rollback"),
    path("endpoints/<slug:public_id>/shadow", api.EndpointShadow.as_view(), name="endpoint-shadow"),
    path("endpoints/<slug:public_id>/traffic", api.EndpointTraffic.as_view(), name="endpoint-traffic"),
    path("endpoints/<slug:public_id>/alerts", alerts_api.AlertList.as_view(), name="endpoint-alerts"),
    path(
        "endpoints/<slug:public_id>/alerts/<slug:alert>",
        alerts_api.AlertDetail.as_view(),
        name="endpoint-alert",
    ),
    path("endpoints/<slug:public_id>/drift", drift_api.EndpointDrift.as_view(), name="endpoint-drift"),
    path("endpoints/<slug:public_id>/requests", requests_api.RequestList.as_view(), name="endpoint-requests"),
]
