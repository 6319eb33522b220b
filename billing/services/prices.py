"""What things cost, now and at any moment before."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from billing import clock, money, rating
from billing.models import Meter, PriceVersion
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict, Invalid
from tenants.permissions import require

PLAN = "standard"


def rate(meter: str, sku: str, at: datetime | None = None) -> Decimal:
    """The price per natural unit in force at a moment (None: now)."""
    return in_force(meter, sku, at or clock.now()).unit_price


def in_force(meter: str, sku: str, at: datetime) -> rating.Price:
    """The whole price in force at a moment, or Invalid: what has no price must not be sold."""
    found = _covering(meter, sku, at, at).first()
    if found is None:
        text = _(
            "There is no %(currency)s price for %(meter)s (%(sku)s) at %(at)s UTC. "
            "Ask the staff of this installation to add one under Prices."
        )
        names = {"currency": settings.CURRENCY, "meter": meter, "sku": sku, "at": f"{at:%Y-%m-%d %H:%M}"}
        raise Invalid(text % names)
    return found.value


def between(meter: str, sku: str, start: datetime, end: datetime) -> list[rating.Price]:
    """Every price in force at some moment of [start, end), oldest first."""
    return [version.value for version in _covering(meter, sku, start, end).order_by("valid_from")]


def estimate(*, items: Iterable[tuple[str, str, int, Decimal | int]]) -> Decimal:
    """What (meter, sku, units, seconds) items would cost at today's prices, unrounded."""
    now = clock.now()
    return money.total(
        [
            in_force(meter, sku, now).amount(Decimal(units) * Decimal(seconds))
            for meter, sku, units, seconds in items
        ]
    )


def set_price(
    actor: Actor,
    *,
    meter: str,
    unit_price: Decimal,
    sku: str = "standard",
    valid_from: datetime | None = None,
) -> PriceVersion:
    """Put a new price in force from a moment on (None: now). Never backwards: used prices do not change."""
    require(actor, "prices.manage")
    if not unit_price.is_finite() or unit_price < 0:
        raise Invalid.at("/unit_price", "invalid", _("A price is zero or more."))
    with transaction.atomic():
        # one writer at a time; readers go on
        found = Meter.objects.select_for_update().filter(key=meter).first()
        if found is None:
            raise Invalid.at("/meter", "unknown", _("There is no meter %(meter)s.") % {"meter": meter})
        now = clock.now()
        start = valid_from or now
        if start < now:
            raise Invalid.at("/valid_from", "past", _("A price starts now or later; used prices stay."))
        current = PriceVersion.objects.filter(
            plan=PLAN, meter=found, sku=sku, currency=settings.CURRENCY, valid_to=None
        ).first()
        if current is not None:
            if current.valid_from >= start:
                text = _("A price from %(at)s UTC on is already set.")
                raise Conflict(text % {"at": f"{current.valid_from:%Y-%m-%d %H:%M}"})
            current.valid_to = start
            current.save(update_fields=["valid_to"])
        version = PriceVersion.objects.create(
            plan=PLAN,
            meter=found,
            sku=sku,
            currency=settings.CURRENCY,
            unit=found.natural_unit,
            unit_size=found.natural_size,
            unit_price=unit_price,
            valid_from=start,
        )
        audit.record(actor, "price.set", version, unit_price=str(unit_price), valid_from=start.isoformat())
    return version


def _covering(meter: str, sku: str, start: datetime, end: datetime):  # type: ignore[no-untyped-def]
    return PriceVersion.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=start),
        plan=PLAN,
        meter_id=meter,
        sku=sku,
        currency=settings.CURRENCY,
        valid_from__lte=end,
    )
