"""The meters and the first price list. Run after every migration; adds only what is missing."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from django.conf import settings
from django.utils.translation import gettext_noop as _

from billing.models import InvoiceSequence, Meter, PriceVersion

FROM = datetime(2020, 1, 1, tzinfo=UTC)
GIB_MONTH = Decimal(1024**3) * 30 * 86400  # byte-seconds in one GiB kept for 30 days
HOUR = Decimal(3600)

# key, title, base unit, natural unit, base units in it, first price
METERS = [
    ("train.process", _("Training processes"), _("process-second"), _("process-hour"), HOUR, Decimal("0.06")),
    ("train.gpu", _("Training GPUs"), _("GPU-second"), _("GPU-hour"), HOUR, Decimal("2.50")),
    (
        "predict.process",
        _("Prediction processes"),
        _("process-second"),
        _("process-hour"),
        HOUR,
        Decimal("0.06"),
    ),
    ("predict.rows", _("Predicted rows"), _("row"), _("1,000,000 rows"), Decimal(10**6), Decimal("0.10")),
    ("storage", _("Storage"), _("byte-second"), _("GiB-month"), GIB_MONTH, Decimal("0.04")),
    (
        "endpoint.requests",
        _("Endpoint requests"),
        _("request"),
        _("1,000 requests"),
        Decimal(1000),
        Decimal("0.02"),
    ),
    (
        "endpoint.replica",
        _("Endpoint replicas"),
        _("replica-second"),
        _("replica-hour"),
        HOUR,
        Decimal("0.01"),
    ),
]


def seed() -> None:
    """Add meters that are missing, and a first price to a meter that never had one in our currency."""
    InvoiceSequence.objects.get_or_create(series="INV")
    for key, title, unit, natural_unit, size, price in METERS:
        Meter.objects.get_or_create(
            key=key,
            defaults={"title": title, "unit": unit, "natural_unit": natural_unit, "natural_size": size},
        )
        if not PriceVersion.objects.filter(meter_id=key, sku="standard", currency=settings.CURRENCY).exists():
            PriceVersion.objects.create(
                meter_id=key,
                currency=settings.CURRENCY,
                unit=natural_unit,
                unit_size=size,
                unit_price=price,
                valid_from=FROM,
            )
