"""Small filters of the billing pages."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django import template
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext_lazy as _

from billing import money
from billing.subjects import page_of

register = template.Library()

LEAST = Decimal("0.0001")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
KINDS = {
    "job": _("Job"),
    "ep": _("Endpoint"),
    "dsv": _("Dataset"),
    "ds": _("Dataset"),
    "ver": _("Model"),
    "mdl": _("Model"),
}


@register.filter
def subject_url(subject: str) -> str:
    """`{{ part.subject|subject_url }}`: the page of what money was spent on, or nothing."""
    return page_of(subject) or ""


@register.filter
def exact(amount: Decimal) -> str:
    """A number with up to six digits after the point, and none that say nothing."""
    return number_format(Decimal(money.plain(round(amount, 6))), force_grouping=True)


@register.filter
def subject_kind(subject: str) -> str:
    """`{{ one.subject|subject_kind }}`: what the money was spent on, by kind; the id where it is unknown."""
    return str(KINDS.get(subject.split("_")[0], subject))


@register.filter
def next_to_nothing(quantity: Decimal) -> bool:
    """Whether writing the quantity out would fill the line with noughts."""
    return 0 < quantity < LEAST


@register.filter
def thousands(quantity: Decimal) -> int:
    """A quantity that is counted in thousands, as a whole number."""
    return round(quantity * 1000)


@register.filter
def by(unit: str) -> str:
    """`×` before a unit that begins with a number: 1,006 × 1,000 requests."""
    return "× " if unit[:1].isdigit() else ""


@register.filter
def utc(moment: datetime) -> str:
    """A moment on paper: UTC, the same for every reader."""
    return f"{utc_day(moment)}, {moment.astimezone(UTC):%H:%M}"


@register.filter
def utc_day(moment: datetime) -> str:
    """The UTC day of a period's start."""
    return date_format(moment.astimezone(UTC), "DATE_FORMAT")


@register.filter
def slot(label: object) -> str:
    """A day of a report in the reader's words; a month, an hour or a name as it is."""
    text = str(label)  # names of services are lazy
    return date_format(date.fromisoformat(text), "DATE_FORMAT") if _DAY.fullmatch(text) else text


@register.filter
def last_day(moment: datetime) -> str:
    """The last UTC day a half-open period touches, given its end."""
    return date_format((moment - timedelta(microseconds=1)).astimezone(UTC), "DATE_FORMAT")
