"""Meters and prices over REST: anybody signed in may know what things cost."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.settings import api_settings

from billing.api.serializers import MeterOut, PriceOut
from billing.models import Meter, PriceVersion


class ByKey(api_settings.DEFAULT_PAGINATION_CLASS):  # type: ignore[misc, name-defined]
    ordering = ("key",)


@extend_schema_view(get=extend_schema(summary="List meters: what is counted, and in which units"))
class MeterList(generics.ListAPIView):
    serializer_class = MeterOut
    pagination_class = ByKey
    queryset = Meter.objects.all()


@extend_schema_view(get=extend_schema(summary="List prices, past and present, newest first"))
class PriceList(generics.ListAPIView):
    serializer_class = PriceOut
    queryset = PriceVersion.objects.all()
