"""Pages of the console itself."""

from __future__ import annotations

from django.urls import URLPattern, path

from console import views

urlpatterns: list[URLPattern] = [
    path("", views.overview, name="overview"),
    path("overview/live", views.overview_live, name="overview_live"),
    path("search", views.search, name="search"),
    path("style", views.style, name="style"),
    path("docs/errors", views.errors, name="errors"),
    path("favicon.ico", views.favicon, name="favicon"),
    path("health/live", views.health_live, name="health_live"),
    path("health/ready", views.health_ready, name="health_ready"),
]
