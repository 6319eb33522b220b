"""How far the sums of a window can be trusted. What cannot be priced is said, never left out in silence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from billing import clock, rating
from billing.models import Allocation, PriceVersion, UsageDay
from billing.services import prices
from billing.services.metering import is_silent
from billing.services.scopes import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """`through` is the moment up to which everything is in the sums; `gaps` are why a sum may be too small."""

    through: datetime
    unbilled_s: int  # unit-seconds that are held and not written down yet
    gaps: tuple[str, ...]
    elsewhere: tuple[str, ...]  # other currencies with usage in the window: reports of their own

    @property
    def complete(self) -> bool:
        return not self.gaps


def of(scope: Scope, start: datetime, end: datetime) -> Completeness:
    """Look at [start, end) of a scope: what runs unwritten, what has no price, what is paid in other money."""
    now = clock.now()
    through, unbilled = min(end, now), 0
    unpriced: set[tuple[str, str]] = set()
    silent = 0
    held = scope.rows(Allocation.objects.open()).filter(started_at__lt=end).select_related("tenant")
    for one in held:
        until = min(end, now)
        if one.settled_through >= until:
            continue
        through = min(through, one.settled_through)
        unbilled += int((until - one.settled_through) / timedelta(seconds=1)) * one.units
        known = prices.between(one.meter_id, one.sku, one.settled_through, until, tenant=one.tenant)
        pieces = rating.split(one.settled_through, until, rating.cuts(known, one.settled_through, until))
        if any(rating.price_at(known, begin) is None for begin, _end in pieces):
            unpriced.add((one.meter_id, one.sku))
        elif is_silent(one, now):
            silent += 1
    gaps = [
        _("%(meter)s (%(sku)s) is held without a price; its cost is not known.")
        % {"meter": meter, "sku": sku}
        for meter, sku in sorted(unpriced)
    ]
    if silent:
        text = _("%(n)s holders are silent; what they used since their last sign of life is not decided yet.")
        gaps.append(text % {"n": silent})
    return Completeness(
        through=max(through, start),
        unbilled_s=unbilled,
        gaps=tuple(gaps),
        elsewhere=tuple(_elsewhere(scope, start, end)),
    )


def _elsewhere(scope: Scope, start: datetime, end: datetime) -> list[str]:
    """Other currencies with usage in the window: looked for by their prices, which are few, not in all usage."""
    others = dict(PriceVersion.objects.exclude(currency=scope.currency).values_list("id", "currency"))
    if not others:
        return []
    last = (end + timedelta(days=1) - timedelta(microseconds=1)).date()
    days = scope.rows(UsageDay.objects.between(start.date(), last).filter(price__in=others))
    return sorted({others[pk] for pk in days.order_by().values_list("price_id", flat=True).distinct()})
