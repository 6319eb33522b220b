"""Small filters of the billing pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django import template
from django.utils.formats import date_format

from billing import money
from billing.subjects import page_of

register = template.Library()


@register.filter
def subject_url(subject: str) -> str:
    """`{{ part.subject|subject_url }}`: the page of what money was spent on, or nothing."""
    return page_of(subject) or ""


@register.filter
def exact(amount: Decimal) -> str:
    """An amount with up to six digits after the point, and none that say nothing."""
    return money.plain(round(amount, 6))


@register.filter
def utc_day(moment: datetime) -> str:
    """The UTC day of a period's start."""
    return date_format(moment.astimezone(UTC), "DATE_FORMAT")


@register.filter
def last_day(moment: datetime) -> str:
    """The last UTC day a half-open period touches, given its end."""
    return date_format((moment - timedelta(microseconds=1)).astimezone(UTC), "DATE_FORMAT")
