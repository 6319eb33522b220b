"""Writes usage down: each event once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import connection

from billing import money, rating
from tenants.errors import Conflict

# sums by hour and by day are the database's own work: a trigger adds each new event to them
_STORE = """
insert into billing_usageevent (tenant_id, source, key, meter_id, sku, price_id, quantity, event_time,
  ended_at, created_at, subject, subject_title, user_label, dims, payload_hash)
values (%(tenant)s, %(source)s, %(key)s, %(meter)s, %(sku)s, %(price)s, %(quantity)s, %(start)s, %(end)s,
  clock_timestamp(), %(subject)s, %(subject_title)s, %(user_label)s, %(dims)s::jsonb, %(hash)s)
on conflict (tenant_id, source, key) do nothing
returning id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One piece of usage as it is to be stored."""

    tenant_id: int
    source: str
    key: str
    price: rating.Price
    quantity: Decimal
    event_time: datetime
    ended_at: datetime
    subject: str
    subject_title: str
    user_label: str
    dims: Mapping[str, Any]


def store(event: Event, *, stated_time: datetime | None) -> bool:
    """Insert, or do nothing where the key is known; a known key with another payload raises Conflict."""
    digest = _digest(event, stated_time)
    with connection.cursor() as cursor:
        cursor.execute(
            _STORE,
            {
                "tenant": event.tenant_id,
                "source": event.source,
                "key": event.key,
                "meter": event.price.meter,
                "sku": event.price.sku,
                "price": event.price.id,
                "quantity": event.quantity,
                "start": event.event_time,
                "end": event.ended_at,
                "subject": event.subject,
                "subject_title": event.subject_title,
                "user_label": event.user_label,
                "dims": json.dumps(dict(event.dims)),
                "hash": digest,
            },
        )
        if cursor.fetchone() is not None:
            return True
        cursor.execute(
            "select payload_hash from billing_usageevent where tenant_id = %s and source = %s and key = %s",
            [event.tenant_id, event.source, event.key],
        )
        known = cursor.fetchone()
    if known is None or known[0] != digest:
        raise Conflict(
            f"Usage {event.source}:{event.key} is already recorded with other values. "
            "The first stays; send a correction under a key of its own."
        )
    return False


def _digest(event: Event, stated_time: datetime | None) -> str:
    """What must be alike when a key comes again. Titles may change; a time that was not given is ours."""
    payload = {
        "meter": event.price.meter,
        "sku": event.price.sku,
        "quantity": money.plain(event.quantity),
        "subject": event.subject,
        "time": stated_time.astimezone(UTC).isoformat() if stated_time else None,
        "dims": dict(event.dims),
    }
    return hashlib.sha256(json.dumps(payload, sort_keys=True, default=str).encode()).hexdigest()
