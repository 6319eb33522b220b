"""Tax rates: dated, by region and category of meters. One that may be on an invoice never changes."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from billing import clock
from billing.models import TaxRate
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict, Invalid
from tenants.permissions import require

CATEGORY = "standard"
_PLACES = Decimal(1).scaleb(-4)


def rates() -> list[TaxRate]:
    """Every rate there is or was: by region and category, the newest first."""
    return list(TaxRate.objects.order_by("region", "category", "-valid_from"))


def set_rate(
    actor: Actor,
    *,
    region: str,
    title: str,
    percent: Decimal,
    category: str = CATEGORY,
    valid_from: datetime | None = None,
) -> TaxRate:
    """Put a rate in force from a moment on (None: now); the one before ends there.

    Never backwards, for invoices are out with the old one; only the first rate of a region and category may begin
    in the past.
    """
    require(actor, "prices.manage")
    region, title, category = region.strip(), title.strip(), category.strip()
    for pointer, text, most in (("/region", region, 40), ("/title", title, 60), ("/category", category, 40)):
        if not text or len(text) > most or not text.isprintable():
            told = _("This is 1 to %(most)s printable characters.")
            raise Invalid.at(pointer, "invalid", told % {"most": most})
    if not percent.is_finite() or not 0 <= percent <= 100 or percent != percent.quantize(_PLACES):
        raise Invalid.at("/percent", "invalid", _("A rate is 0 to 100 per cent with at most four decimals."))
    try:
        with transaction.atomic():
            rate = _write(region, category, title, percent, valid_from)
            audit.record(
                actor, "tax.set", rate, percent=str(percent), region=region, category=category,
                valid_from=rate.valid_from.isoformat(),
            )  # fmt: skip
    except IntegrityError as error:  # two at once: the database lets one of them in
        raise Conflict(_("Somebody else set a rate of this region a moment ago. Look again.")) from error
    return rate


def _write(region: str, category: str, title: str, percent: Decimal, valid_from: datetime | None) -> TaxRate:
    now = clock.now()
    start = valid_from or now
    known = TaxRate.objects.select_for_update().filter(region=region, category=category)
    last = known.order_by("-valid_from").first()
    if last is not None:
        if start < now:
            raise Invalid.at(
                "/valid_from", "past", _("A rate starts now or later; what was invoiced keeps its own.")
            )
        if last.valid_from >= start:
            text = _("A rate from %(at)s UTC on is already set.")
            raise Conflict(text % {"at": f"{last.valid_from:%Y-%m-%d %H:%M}"})
        if last.valid_to is None or last.valid_to > start:
            last.valid_to = start
            last.save(update_fields=["valid_to"])
    return TaxRate.objects.create(
        region=region, category=category, title=title, percent=percent, valid_from=start
    )
