"""The whole site map on one screen."""

from __future__ import annotations

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

import billing.urls
import jobs.urls
import tenants.urls
from console import views
from console.metrics import metrics

# Swagger's page sets styles by script; this one address may, and no other
swagger = csp_update({"style-src": [UNSAFE_INLINE]})(
    SpectacularSwaggerSplitView.as_view(url_name="api-schema")
)
api = [
    *tenants.urls.api_urlpatterns,
    *jobs.urls.api_urlpatterns,
    *billing.urls.api_urlpatterns,
]

urlpatterns = [
    path("", include(("console.urls_pages", "console"))),
    path("", include("tenants.urls")),
    path("", include("jobs.urls")),
    path("", include("billing.urls")),
    path("accounts/", include("allauth.urls")),
    path("i18n/", include("django.conf.urls.i18n")),
    path("admin/", admin.site.urls),
    path("api/v1/", include((api, "api"))),
    path("api/schema", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs", swagger, name="api-docs"),
    path("metrics", metrics, name="metrics"),
]
handler400 = views.bad_request
handler403 = views.forbidden
handler404 = views.not_found
handler500 = views.server_error
