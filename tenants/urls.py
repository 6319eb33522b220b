"""Pages and API routes of this app."""

from __future__ import annotations

from django.urls import URLPattern

app_name = "tenants"
urlpatterns: list[URLPattern] = []
api_urlpatterns: list[URLPattern] = []
