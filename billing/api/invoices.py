"""Invoices over REST."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api.serializers import DocumentOut, FinalizeIn, InvoiceOut, document_data
from billing.models import Invoice
from billing.services import documents
from billing.services import invoices as service
from tenants.api import actor_of
from tenants.permissions import require


class InvoiceList(generics.ListAPIView):
    serializer_class = InvoiceOut

    def get_queryset(self) -> QuerySet[Invoice]:
        return service.readable_by(actor_of(self.request))

    @extend_schema(summary="List finalized invoices; staff see those of every tenant")
    def get(self, request: Request) -> Response:
        if not actor_of(request).may("platform.reports"):
            require(actor_of(request), "invoices.view")
        return self.list(request)


class InvoiceDetail(APIView):
    @extend_schema(
        summary="Read an invoice with its lines; `current` is this month's draft", responses=DocumentOut
    )
    def get(self, request: Request, public_id: str) -> Response:
        return Response(document_data(service.find(actor_of(request), public_id)))


class InvoiceFinalize(APIView):
    @extend_schema(
        summary="Number and freeze a draft (staff); a repeat returns the same invoice",
        request=FinalizeIn,
        responses=DocumentOut,
    )
    def post(self, request: Request, public_id: str) -> Response:
        actor = actor_of(request)
        service.find(actor, public_id)  # a stranger learns nothing, not even what the body should be
        given = FinalizeIn(data=request.data)
        given.is_valid(raise_exception=True)
        invoice = service.finalize_shown(actor, public_id, **given.validated_data)
        return Response(document_data(documents.stored(invoice)))
