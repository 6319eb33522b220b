"""The meters and the first price list. Run after every migration; adds only what is missing."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from django.conf import settings

from billing.models import InvoiceSequence, Meter, PriceVersion

FROM = datetime(2020, 1, 1, tzinfo=UTC)
GIB_MONTH = Decimal(1024**3) * 30 * 86400  # byte-seconds in one GiB kept for 30 days
HOUR = Decimal(3600)

# key, title, base unit, natural unit, base units in it, first price
METERS = [
    ("train.process", "Training processes", "process-second", "process-hour", HOUR, Decimal("0.06")),
    ("train.gpu", "Training GPUs", "GPU-second", "GPU-hour", HOUR, Decimal("2.50")),
    ("storage", "Storage", "byte-second", "GiB-month", GIB_MONTH, Decimal("0.04")),
    ("endpoint.requests", "Endpoint requests", "request", "1,000 requests", Decimal(1000), Decimal("0.02")),
    ("endpoint.replica", "Endpoint replicas", "replica-second", "replica-hour", HOUR, Decimal("0.01")),
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
