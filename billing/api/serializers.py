"""Shapes of the billing API. Money is a decimal string; times are UTC."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing import money
from billing.models import Invoice, Meter, PriceVersion
from billing.services.documents import Document
from tenants.api import Strict


@extend_schema_field({"type": "string", "format": "decimal", "examples": ["43.83"]})
class DecimalText(serializers.Field):
    """An exact decimal as text, without exponent; at most twelve digits after the point."""

    def to_representation(self, value: Decimal) -> str:
        return money.plain(money.kept(value))


@extend_schema_field({"type": "string", "format": "decimal", "examples": ["43.83"]})
class AmountText(serializers.Field):
    """A rounded amount at the currency's places."""

    def to_representation(self, value: Decimal) -> str:
        return money.text(value, settings.CURRENCY)


class MeterOut(serializers.ModelSerializer):
    natural_size = DecimalText()

    class Meta:
        model = Meter
        fields = ["key", "title", "unit", "natural_unit", "natural_size"]


class PriceOut(serializers.ModelSerializer):
    meter = serializers.CharField(source="meter_id")
    unit_size = DecimalText()
    unit_price = DecimalText()

    class Meta:
        model = PriceVersion
        fields = [
            "plan", "meter", "sku", "currency", "unit", "unit_size", "unit_price", "valid_from", "valid_to",
        ]  # fmt: skip


class InvoiceOut(serializers.ModelSerializer):
    id = serializers.CharField(source="shown_id")
    tenant = serializers.CharField(source="buyer_id")
    total = serializers.SerializerMethodField()

    class Meta:
        model = Invoice
        fields = [
            "id", "number", "status", "tenant", "seller_name", "buyer_name", "currency", "period_start",
            "period_end", "total", "finalized_at", "content_hash",
        ]  # fmt: skip

    def get_total(self, invoice: Invoice) -> str:
        return money.text(invoice.total, invoice.currency)


class PartOut(serializers.Serializer):
    subject = serializers.CharField()
    title = serializers.CharField(source="subject_title")
    quantity = DecimalText()
    exact = DecimalText()


class LineOut(serializers.Serializer):
    position = serializers.IntegerField()
    meter = serializers.CharField(source="meter_id")
    title = serializers.CharField()
    sku = serializers.CharField()
    late = serializers.BooleanField(help_text="Used in a period that was already invoiced.")
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField()
    quantity = DecimalText(help_text="In base units.")
    unit = serializers.CharField()
    unit_size = DecimalText(help_text="Base units in the unit the price is for.")
    unit_price = DecimalText()
    exact = DecimalText(help_text="Before rounding.")
    amount = serializers.SerializerMethodField()

    def get_amount(self, line: Any) -> str:
        return money.text(line.amount, line.invoice.currency)


class LineWithParts(LineOut):
    parts = PartOut(many=True)


class DocumentOut(InvoiceOut):
    lines = LineWithParts(many=True)

    class Meta(InvoiceOut.Meta):
        fields = [*InvoiceOut.Meta.fields, "lines"]


def document_data(document: Document) -> dict[str, Any]:
    """A document, stored or not, in the shape of `DocumentOut`."""
    lines = [
        {**LineOut(line).data, "parts": PartOut(parts, many=True).data} for line, parts in document.lines
    ]
    return {**InvoiceOut(document.invoice).data, "lines": lines}


class FinalizeIn(Strict):
    early = serializers.BooleanField(
        default=False, help_text="Close a month that still runs, at this instant."
    )
    period_start = serializers.DateTimeField(
        required=False,
        allow_null=True,
        default=None,
        help_text="As shown on the draft: a repeat changes nothing.",
    )


class BudgetOut(serializers.Serializer):
    amount = AmountText()
    mode = serializers.CharField()
    percent = serializers.IntegerField()


class DaySpend(serializers.Serializer):
    day = serializers.DateField()
    cost = DecimalText()


class SubjectSpend(serializers.Serializer):
    subject = serializers.CharField()
    title = serializers.CharField()
    cost = DecimalText()


class UsageOut(serializers.Serializer):
    month = serializers.CharField()
    currency = serializers.CharField()
    total = DecimalText(help_text="Exact, with what runs right now.")
    budget = BudgetOut(allow_null=True)
    by_day = DaySpend(many=True)
    by_subject = SubjectSpend(many=True)
