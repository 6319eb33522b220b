"""Turn numbers, money and times into words people read; nothing here knows a model."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django.utils import formats
from django.utils.timezone import now
from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

NOTHING = "–"  # what a page shows where a value is not known
SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "CNY": "¥", "JPY": "¥"}
SMALLEST_UNIT = {"JPY": 0}
# beyond these a number is written as a power of ten, as app.js does
SMALLEST_PLAIN, LARGEST_PLAIN = Decimal("1e-6"), Decimal("1e12")
# up to so many seconds: the unit's own length and its words
SPANS: tuple[tuple[int | None, int, Any], ...] = (
    (3600, 60, ngettext_lazy("%(n)s minute", "%(n)s minutes", "n")),
    (86400, 3600, ngettext_lazy("%(n)s hour", "%(n)s hours", "n")),
    (30 * 86400, 86400, ngettext_lazy("%(n)s day", "%(n)s days", "n")),
    (365 * 86400, 30 * 86400, ngettext_lazy("%(n)s month", "%(n)s months", "n")),
    (None, 365 * 86400, ngettext_lazy("%(n)s year", "%(n)s years", "n")),
)
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def decimal_or_none(value: Any) -> Decimal | None:
    """Read anything that looks like a number, or None."""
    if value is None or value == "" or isinstance(value, bool):
        return None
    try:
        read = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    return read if read.is_finite() else None


def money(value: Any, currency: str = "USD") -> str:
    """`$1,234.50`; an amount below one cent keeps the digits that make it more than nothing."""
    amount = decimal_or_none(value)
    if amount is None:
        return NOTHING
    places = SMALLEST_UNIT.get(currency, 2)
    size = abs(amount)
    if amount and size < Decimal(1).scaleb(-places):
        # a running job costs fractions of a cent: two digits that count, at most eight places
        places = min(8, -size.adjusted() + 1)
        if size < Decimal(1).scaleb(-places):
            return f"< {money(Decimal(1).scaleb(-places), currency)}"
    text = formats.number_format(
        size.quantize(Decimal(1).scaleb(-places)), decimal_pos=places, force_grouping=True
    )
    sign = SIGNS.get(currency)
    minus = "−" if amount < 0 else ""
    return f"{minus}{sign}{text}" if sign else f"{minus}{currency} {text}"


def number(value: Any, places: int | None = None) -> str:
    """Group thousands; a fraction keeps up to four digits that count unless places are given."""
    read = decimal_or_none(value)
    if read is None:
        return NOTHING
    if read and not SMALLEST_PLAIN <= abs(read) < LARGEST_PLAIN:
        return f"{read:.2e}"  # a diverging loss, or one that has all but vanished
    if places is None:
        if read == read.to_integral_value():
            places = 0
        else:
            places = max(0, min(6, 3 - read.adjusted()))
            read = round(read, places).normalize()
            places = max(0, -int(read.as_tuple().exponent))
    return formats.number_format(round(read, places), decimal_pos=places, force_grouping=True)


def percent(value: Any, places: int = 1) -> str:
    """A share (0.975) as `97.5 %`."""
    read = decimal_or_none(value)
    if read is None:
        return NOTHING
    return f"{formats.number_format(round(read * 100, places), decimal_pos=places)} %"


def milliseconds(value: Any) -> str:
    """A latency with two digits that count: `0.024 ms`, `3.1 ms`, `120 ms`."""
    read = decimal_or_none(value)
    if read is None:
        return NOTHING
    places = max(0, min(6, 1 - read.adjusted())) if read else 0
    return _("%(n)s ms") % {"n": formats.number_format(round(read, places), decimal_pos=places)}


def size_of(value: Any) -> str:
    """Bytes with a unit people read: `3.2 MiB`."""
    read = decimal_or_none(value)
    if read is None:
        return NOTHING
    unit = 0
    while abs(read) >= 1024 and unit < len(BYTE_UNITS) - 1:
        read /= 1024
        unit += 1
    places = 0 if unit == 0 or abs(read) >= 100 else 1
    return f"{formats.number_format(round(read, places), decimal_pos=places)} {BYTE_UNITS[unit]}"


def duration(value: Any) -> str:
    """Seconds (or a timedelta) as at most two units: `2 m 5 s`; below a second in milliseconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    read = decimal_or_none(value)
    if read is None:
        return NOTHING
    if read < 0:
        return f"−{duration(-read)}"
    if read < 1:
        return _("0 s") if read == 0 else _("%(n)s ms") % {"n": number(round(read * 1000, 1))}
    if read < 10:
        return _("%(n)s s") % {"n": number(round(read, 1))}
    seconds = int(read)
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [
        (days, _("%(n)s d")),
        (hours, _("%(n)s h")),
        (minutes, _("%(n)s m")),
        (rest, _("%(n)s s")),
    ]
    first = next(i for i, (count, _unit) in enumerate(parts) if count)
    return " ".join(unit % {"n": count} for count, unit in parts[first : first + 2] if count)


def ago(value: datetime, moment: datetime | None = None) -> str:
    """How long ago, in one unit: `5 minutes ago`, `in 2 hours`, `just now`."""
    seconds = int(((moment or now()) - value).total_seconds())
    size = abs(seconds)
    if size < 45:
        return _("just now")
    unit_s, words = next(
        (unit_s, words) for limit, unit_s, words in SPANS if limit is None or size < limit - unit_s // 2
    )
    count = max(1, round(size / unit_s))
    span = words % {"n": count}
    return (_("%(span)s ago") if seconds > 0 else _("in %(span)s")) % {"span": span}
