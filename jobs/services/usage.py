"""Brings the gateways' write-ahead logs to billing: every answered request once, whatever died in between.

The offset of a file and the usage it stands for move in one transaction. A file that nobody holds locked is
finished; when all of it is shipped it is deleted.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from billing import clock
from billing.models import UsageEvent
from billing.services import metering
from jobs.models import Endpoint, UsageLog
from tenants.errors import Conflict, Invalid

log = logging.getLogger(__name__)

METER = "endpoint.requests"
CHUNK_BYTES = 4 * 1024 * 1024
REMEMBER = timedelta(days=40)  # longer than billing takes late usage


@dataclass(slots=True)
class _Sum:
    """What one caller asked of one revision of an endpoint in one minute."""

    requests: int = 0
    rows: int = 0
    tokens: int = 0  # read and written by a language model
    us: int = 0  # from the body of a request to its answer
    compute_us: int = 0  # of that, its share of the model's own time


def ship_endpoint_usage() -> int:
    """Ship all that is written down; returns the number of requests. Safe to run side by side."""
    folder = Path(settings.USAGE_DIR)
    shipped = 0
    for path in sorted(folder.glob("gw-*.jsonl")):
        shipped += _ship_file(path)
    UsageLog.objects.filter(finished_at__lt=timezone.now() - REMEMBER).delete()
    return shipped


def record_try(endpoint: Endpoint, *, request_id: str, rows: int) -> None:
    """Count one answered request of the playground."""
    metering.record_usage(
        endpoint.tenant,
        meter=METER,
        quantity=1,
        source="playground",
        key=request_id,
        subject=endpoint.public_id,
        subject_title=endpoint.name,
        dims={"rows": rows},
    )


def requests_since(endpoint: Endpoint, since: datetime) -> int:
    """Answered requests from a moment on; those of the last few seconds may still be on their way."""
    rows = UsageEvent.objects.filter(
        tenant=endpoint.tenant_id, meter_id=METER, subject=endpoint.public_id, event_time__gte=since
    )
    return int(rows.aggregate(sum=Sum("quantity"))["sum"] or 0)


def requests_of(endpoints: Iterable[Endpoint], since: datetime) -> dict[str, int]:
    """Answered requests of many endpoints, by public id."""
    rows = UsageEvent.objects.filter(
        tenant__in={one.tenant_id for one in endpoints},
        meter_id=METER,
        subject__in=[one.public_id for one in endpoints],
        event_time__gte=since,
    )
    sums = rows.order_by().values_list("subject").annotate(sum=Sum("quantity"))
    return {subject: int(quantity) for subject, quantity in sums}


def requests_by_minute(endpoint: Endpoint, *, minutes: int = 60) -> list[int]:
    """Answered requests of the last minutes, oldest first."""
    this = timezone.now().replace(second=0, microsecond=0)
    first = this - timedelta(minutes=minutes - 1)
    rows = UsageEvent.objects.filter(
        tenant=endpoint.tenant_id, meter_id=METER, subject=endpoint.public_id, event_time__gte=first
    )
    counts = [0] * minutes
    for moment, quantity in rows.values_list("event_time", "quantity"):
        place = int((moment - first).total_seconds() // 60)
        if place < minutes:
            counts[place] += int(quantity)
    return counts


def _ship_file(path: Path) -> int:
    UsageLog.objects.get_or_create(name=path.name)
    shipped = 0
    while True:
        with transaction.atomic():
            mark = UsageLog.objects.select_for_update().get(name=path.name)
            lines, end = _read(path, mark.offset)
            if end == mark.offset:
                break
            shipped += _record(path.stem, mark.offset, end, lines)
            mark.offset = end
            mark.save(update_fields=["offset"])
    _finish(path)
    return shipped


def _read(path: Path, offset: int) -> tuple[list[bytes], int]:
    """Whole lines from `offset` on. A last line without its end belongs to an answer that was never sent."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            chunk = file.read(CHUNK_BYTES)
    except FileNotFoundError:  # another shipper has finished it
        return [], offset
    end = chunk.rfind(b"\n") + 1
    return chunk[:end].splitlines(), offset + end


def _record(segment: str, start: int, end: int, lines: list[bytes]) -> int:
    sums: dict[tuple[str, str, str, datetime], _Sum] = defaultdict(_Sum)
    for number, line in enumerate(lines):
        try:
            said = json.loads(line)
            minute = datetime.fromisoformat(said["at"]).replace(second=0, microsecond=0)
            one = sums[said["endpoint"], str(said["version"]), said["token"], minute]
            rows, us = int(said["rows"]), int(said["us"])
            tokens, compute_us = int(said.get("tokens", 0)), int(said.get("compute_us", 0))
        except (ValueError, KeyError, TypeError):
            log.error(
                "a usage line cannot be read", extra={"segment": segment, "after": start, "line": number}
            )
            continue
        one.requests += 1
        one.rows += rows
        one.us += us
        one.tokens += tokens
        one.compute_us += compute_us
    names = {endpoint for endpoint, _revision, _token, _minute in sums}
    endpoints = {
        one.public_id: one for one in Endpoint.objects.filter(public_id__in=names).select_related("tenant")
    }
    shipped = 0
    for (name, revision, token, minute), total in sorted(sums.items(), key=lambda item: item[0]):
        endpoint = endpoints.get(name)
        if endpoint is None:
            log.error("usage of an unknown endpoint", extra={"endpoint": name, "requests": total.requests})
            continue
        key = f"{segment}:{start}-{end}:{name}:{revision}:{token}:{minute:%m%d%H%M}"
        if _record_one(endpoint, key, revision, token, minute, total):
            shipped += total.requests
    return shipped


def _record_one(
    endpoint: Endpoint, key: str, revision: str, token: str, minute: datetime, total: _Sum
) -> bool:
    dims: dict[str, Any] = {
        "token": token,
        "revision": revision,
        "rows": total.rows,
        "tokens": total.tokens,
        "us": total.us,
        "compute_us": total.compute_us,
    }
    try:
        with transaction.atomic():
            return metering.record_usage(
                endpoint.tenant,
                meter=METER,
                quantity=total.requests,
                source="gateway",
                key=key,
                subject=endpoint.public_id,
                subject_title=endpoint.name,
                # a gateway whose clock runs ahead must not hold up everybody's usage
                event_time=min(minute, clock.now()),
                dims=dims,
            )
    except (Invalid, Conflict) as refusal:
        # older than billing takes, or without a price: skipping it beats billing nobody ever again
        log.error("usage was refused: %s", refusal.detail, extra={"key": key, "requests": total.requests})
        return False


def _finish(path: Path) -> None:
    """Delete a file that its gateway has let go of, once all of it is shipped."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with transaction.atomic():
            mark = UsageLog.objects.select_for_update().get(name=path.name)
            lines, end = _read(path, mark.offset)
            if lines or end != mark.offset:
                return  # written between our last look and its end: the next round ships it
            UsageLog.objects.filter(pk=mark.pk).update(finished_at=timezone.now())
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return  # a living gateway writes it
    finally:
        os.close(file)
