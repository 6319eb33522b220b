"""The request log: takes what scribes wrote, seals it with each tenant's key, shows it, and forgets it in time.

A scribe's file holds masked lines and lives for seconds. A row is known by its file and line, so a file that is
read twice adds nothing.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Sum, Window
from django.db.models.functions import Length
from django.utils import timezone

from jobs.models import Endpoint, LoggedRequest, RequestLogGap
from tenants import audit, crypto
from tenants.actor import Actor
from tenants.models import ApiToken, Tenant
from tenants.models.base import new_public_id
from tenants.permissions import require
from tenants.services.secrets import data_key

log = logging.getLogger(__name__)

MOST_KEPT = 100_000  # of one endpoint; the oldest go first
MOST_BYTES = 256 * 1024 * 1024  # of one endpoint, sealed
MOST_EXPORTED = 50_000
AT_ONCE = 500
STATUSES = {"2xx": (200, 299), "4xx": (400, 499), "5xx": (500, 599)}
_SWEPT_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which requests somebody looks for. Empty: all."""

    status: str = ""  # "4xx", or one number
    label: str = ""  # the predicted class
    token: str = ""  # public id of a key or token

    @classmethod
    def read(cls, asked: Mapping[str, str]) -> Wanted:
        """From a query; PostgreSQL takes no NUL, here or in the audit log."""
        return cls(**{one.name: str(asked.get(one.name, "")).replace("\0", "")[:200] for one in fields(cls)})

    def of(self, rows: QuerySet[LoggedRequest]) -> QuerySet[LoggedRequest]:
        if self.status in STATUSES:
            rows = rows.filter(status__range=STATUSES[self.status])
        elif self.status:
            rows = rows.filter(status=int(self.status)) if self.status.isdecimal() else rows.none()
        if self.label:
            rows = rows.filter(label=self.label)
        return rows.filter(token=self.token) if self.token else rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request in clear, for somebody who may see it."""

    row: LoggedRequest
    key: str  # the name of the key or token; empty without one
    input: Any
    output: Any

    @property
    def ms(self) -> float:
        return self.row.us / 1000

    @property
    def tone(self) -> str:
        return "ok" if self.row.status < 400 else "warn" if self.row.status < 500 else "bad"

    @property
    def sent(self) -> str:
        return _pretty(self.input)

    @property
    def answered(self) -> str:
        return _pretty(self.output)

    @property
    def short(self) -> str:
        """The beginning of what was sent, on one line."""
        text = json.dumps(self.input, ensure_ascii=False) if self.input is not None else "–"
        return text if len(text) <= 90 else text[:89] + "…"

    def as_json(self) -> dict[str, Any]:
        row = self.row
        return {
            "id": row.public_id,
            "at": row.at.isoformat(),
            "request_id": row.request_id,
            "status": row.status,
            "latency_ms": round(self.ms, 3),
            "revision": row.revision,
            "key": self.key or None,
            "token": row.token or None,
            "rows": row.rows,
            "label": row.label or None,
            "input": self.input,
            "output": self.output,
        }


def read_requests(actor: Actor, endpoint: Endpoint, wanted: Wanted) -> QuerySet[LoggedRequest]:
    """The log of an endpoint, newest first, for those who may edit it; that they looked is written down."""
    require(actor, "endpoints.publish", endpoint)
    with transaction.atomic():
        audit.record(actor, "endpoint.requests_read", endpoint, status=wanted.status, label=wanted.label)
    return wanted.of(LoggedRequest.objects.filter(endpoint=endpoint))


def export_requests(actor: Actor, endpoint: Endpoint, wanted: Wanted, *, format: str) -> Iterator[Entry]:
    """Everything that is wanted, newest first, up to MOST_EXPORTED; audited before the first line leaves."""
    require(actor, "endpoints.publish", endpoint)
    rows = wanted.of(LoggedRequest.objects.filter(endpoint=endpoint))
    with transaction.atomic():
        audit.record(
            actor, "endpoint.requests_exported", endpoint, format=format, status=wanted.status,
            label=wanted.label, rows=min(rows.count(), MOST_EXPORTED),
        )  # fmt: skip
    return _exported(endpoint, rows)


def entries(tenant: Tenant, rows: Sequence[LoggedRequest]) -> list[Entry]:
    """Rows with their contents in clear. Whoever calls it has made sure that they may be seen."""
    key = data_key(tenant)
    names = dict(
        ApiToken.objects.filter(public_id__in={row.token for row in rows if row.token}).values_list(
            "public_id", "name"
        )
    )
    found = []
    for row in rows:
        told = json.loads(crypto.unseal(key, bytes(row.sealed), context=_context(row.public_id)))
        found.append(
            Entry(row=row, key=names.get(row.token, row.token), input=told["input"], output=told["output"])
        )
    return found


def lost_since(endpoint: Endpoint, since: datetime) -> int:
    """Requests of the sample that were not kept, because there were too many at once."""
    rows = RequestLogGap.objects.filter(endpoint=endpoint, at__gte=since)
    return int(rows.aggregate(sum=Sum("count"))["sum"] or 0)


def labels_of(endpoint: Endpoint) -> list[str]:
    """The predicted classes in the log, the commonest first."""
    rows = LoggedRequest.objects.filter(endpoint=endpoint).exclude(label="").order_by()
    counted = rows.values_list("label").annotate(n=Count("pk")).order_by("-n", "label")
    return [label for label, _n in counted[:50]]


def ship_logged_requests() -> int:
    """Take every file no scribe holds any more; returns how many requests were kept. Safe side by side."""
    kept = 0
    for path in sorted(Path(settings.REQUESTS_DIR).glob("rq-*.jsonl")):
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another shipper has finished it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(file).st_nlink:
                continue  # another shipper finished it before the lock was ours
            kept += _keep(file, path)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            continue  # its scribe, or another shipper, is at it
        finally:
            os.close(file)
    return kept


def forget_logged_requests() -> int:
    """Delete what its endpoint keeps no longer, the oldest beyond MOST_KEPT and MOST_BYTES; returns how many."""
    now = timezone.now()
    gone = 0
    logged = LoggedRequest.objects.order_by().values_list("endpoint_id").annotate(n=Count("pk"))
    counts = dict(logged)
    for endpoint in Endpoint.objects.filter(pk__in=counts):
        mine = LoggedRequest.objects.filter(endpoint=endpoint)
        gone += _delete(mine.filter(at__lt=now - timedelta(days=endpoint.log_days)))
        if counts[endpoint.pk] > MOST_KEPT:
            oldest = mine.values_list("at", flat=True)[MOST_KEPT:][:1].first()
            if oldest is not None:
                gone += _delete(mine.filter(at__lte=oldest))
        gone += _forget_beyond_bytes(mine)
    RequestLogGap.objects.filter(at__lt=now - timedelta(days=90)).delete()
    return gone


def _forget_beyond_bytes(mine: QuerySet[LoggedRequest]) -> int:
    size = Length("sealed")  # PostgreSQL knows it without reading the bytes
    if (mine.aggregate(sum=Sum(size))["sum"] or 0) <= MOST_BYTES:
        return 0
    newer = Window(Sum(size), order_by=F("at").desc())  # of a row and all that are newer
    oldest = mine.annotate(newer=newer).filter(newer__gt=MOST_BYTES).order_by("-at").values_list("at").first()
    return _delete(mine.filter(at__lte=oldest[0])) if oldest else 0


def _delete(rows: QuerySet[LoggedRequest]) -> int:
    """In portions, so that no lock is held for long."""
    gone = 0
    while pks := list(rows.order_by().values_list("pk", flat=True)[:_SWEPT_AT_ONCE]):
        gone += LoggedRequest.objects.filter(pk__in=pks).delete()[0]
    return gone


def _keep(file: int, path: Path) -> int:
    """Write all lines of an open file into the table, each once; its name says where they are from."""
    lines = list(_lines(file))
    wanted = {str(said.get("endpoint")) for _number, said in lines}
    found = Endpoint.objects.filter(public_id__in=wanted, tenant__closed_at=None).select_related("tenant")
    endpoints = {one.public_id: one for one in found}
    keys: dict[int, bytes] = {}
    rows: list[LoggedRequest] = []
    gaps: list[RequestLogGap] = []
    for number, said in lines:
        endpoint = endpoints.get(str(said.get("endpoint")))
        if endpoint is None:
            continue  # deleted meanwhile
        source = f"{path.stem}:{number}"
        try:
            at = datetime.fromisoformat(said["at"])
            if dropped := int(said.get("dropped", 0)):
                gaps.append(RequestLogGap(endpoint=endpoint, at=at, count=dropped, source=source))
            if "id" in said:
                if endpoint.tenant_id not in keys:
                    keys[endpoint.tenant_id] = data_key(endpoint.tenant)
                rows.append(_row(endpoint, keys[endpoint.tenant_id], said, at, source))
        except (ValueError, KeyError, TypeError):
            log.error("a line of the request log cannot be read", extra={"file": path.name, "line": number})
    with transaction.atomic():
        LoggedRequest.objects.bulk_create(rows, batch_size=AT_ONCE, ignore_conflicts=True)
        RequestLogGap.objects.bulk_create(gaps, batch_size=AT_ONCE, ignore_conflicts=True)
    return len(rows)


def _row(endpoint: Endpoint, key: bytes, said: Mapping[str, Any], at: datetime, source: str) -> LoggedRequest:
    public_id = new_public_id("lrq")
    told = json.dumps({"input": said.get("input"), "output": said.get("output")}, ensure_ascii=False)
    return LoggedRequest(
        public_id=public_id,
        tenant=endpoint.tenant,
        endpoint=endpoint,
        at=at,
        request_id=str(said["id"])[:64],
        revision=int(said["revision"]),
        token=str(said["token"])[:40],
        status=int(said["status"]),
        us=int(said["us"]),
        rows=int(said["rows"]),
        label=str(said.get("label", "")).replace("\0", "")[:200],
        sealed=crypto.seal(key, told.encode("utf-8", "replace"), context=_context(public_id)),
        source=source,
    )


def _lines(opened: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of every line that is whole."""
    with open(opened, "rb", closefd=False) as file:
        for number, line in enumerate(file):
            try:
                said = json.loads(line)
            except ValueError:  # a scribe that was killed midway
                continue
            if isinstance(said, dict):
                yield number, said


def _exported(endpoint: Endpoint, rows: QuerySet[LoggedRequest]) -> Iterator[Entry]:
    last: LoggedRequest | None = None
    left = MOST_EXPORTED
    while left > 0:
        here = rows
        if last is not None:
            here = rows.filter(Q(at__lt=last.at) | Q(at=last.at, pk__lt=last.pk))
        part = list(here[: min(AT_ONCE, left)])
        if not part:
            return
        yield from entries(endpoint.tenant, part)
        last, left = part[-1], left - len(part)


def _context(public_id: str) -> str:
    return f"logged_request.{public_id}"


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) if value is not None else ""
