"""Usage told from outside, in batches: each event once, and every refusal beside the event it is about."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import psycopg
from django.db import connection, transaction
from django.utils.translation import gettext as _

from billing import clock, rating
from billing.models import Meter
from billing.services import budgets, locks, prices, told
from billing.services.metering import MAX_AHEAD, MAX_LATE
from tenants.actor import Actor
from tenants.errors import Fault, Invalid
from tenants.models import Tenant
from tenants.permissions import require

MOST_EVENTS = 1000
NAME_SPACE = "api:"  # of sources from outside: nobody takes a key away from our own meters
FIELDS = frozenset({
    "key", "meter", "sku", "quantity", "event_time", "subject", "subject_title", "user", "labels",
})  # fmt: skip
_SOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)
_UTC_TIME = re.compile(  # as isoformat() writes it
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.(?!000000)[0-9]{6})?\+00:00", re.ASCII
)
_BETWEEN = "\x1f"  # no value holds it: every text here is printable

# One statement for a batch, in the order of the keys: two batches with the same keys wait, they never lock each
# other out. Columns travel as joined text, which both sides take apart fastest. It returns the keys that are new.
STORE = """
insert into billing_usageevent (tenant_id, source, key, meter_id, sku, price_id, quantity, event_time, ended_at,
  created_at, subject, subject_title, user_label, dims, payload_hash)
select %(tenant)s, %(source)s, key, meter, sku, price::bigint, quantity::numeric, at::timestamptz, at::timestamptz,
  clock_timestamp(), subject, coalesce(title, ''), coalesce(person, ''), dims::jsonb, hash
from unnest(
  string_to_array(%(key)s, chr(31)), string_to_array(%(meter)s, chr(31)), string_to_array(%(sku)s, chr(31)),
  string_to_array(%(price)s, chr(31)), string_to_array(%(quantity)s, chr(31)),
  string_to_array(%(time)s, chr(31)), string_to_array(%(subject)s, chr(31)),
  string_to_array(%(title)s, chr(31)), string_to_array(%(user)s, chr(31)),
  string_to_array(%(dims)s, chr(31)), string_to_array(%(hash)s, chr(31))
) as given (key, meter, sku, price, quantity, at, subject, title, person, dims, hash)
order by key
on conflict (tenant_id, source, key) do nothing
returning key
"""
_KNOWN = """
select key, payload_hash from billing_usageevent where tenant_id = %s and source = %s and key = any(%s)
"""


class Status(StrEnum):
    """What became of one event of a batch."""

    STORED = "stored"
    DUPLICATE = "duplicate"  # the very same is known: as good as stored
    CONFLICT = "conflict"  # the key is known with other values: the first stays
    INVALID = "invalid"

    @property
    def code(self) -> int:
        """The HTTP status this event alone would have had."""
        return {"stored": 201, "duplicate": 200, "conflict": 409, "invalid": 422}[self.value]


@dataclass(slots=True)
class Result:
    """What became of one event, and why."""

    index: int
    key: str
    outcome: Status
    faults: Sequence[Fault] = ()


@dataclass(slots=True)
class _Row:
    """A valid event on its way to its columns."""

    result: Result
    alike: _Alike
    price: rating.Price
    quantity: str
    time: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alike:
    """What events of a batch say alike, checked once: all but key, quantity and time."""

    prices: Sequence[rating.Price]  # in force at some moment of the time we take
    always: rating.Price | None  # in force over all of it
    subject: str
    title: str
    user: str
    dims: str
    before: str  # of what is hashed: what stands before quantity and time,
    after: str  # and behind them


def ingest(actor: Actor, *, source: str, events: Sequence[Any]) -> list[Result]:
    """Store what is new of a batch of the active tenant; one result per event, in its order.

    A batch is refused whole only where it cannot be read as one; a bad event never keeps the others out.
    """
    require(actor, "usage.record")
    check_batch(source, events)
    return record_batch(actor.the_tenant, source=NAME_SPACE + source, events=events)


def check_batch(source: str, events: Sequence[Any]) -> None:
    """Refuse what cannot be read as a batch."""
    if not _SOURCE.fullmatch(source):
        text = _("A source has 1 to 32 of a-z, 0-9, '.', '_' and '-', such as render-farm.")
        raise Invalid.at("/source", "invalid", text)
    if not 1 <= len(events) <= MOST_EVENTS:
        raise Invalid.at("/events", "count", _("A batch has 1 to %(n)s events.") % {"n": MOST_EVENTS})


def record_batch(
    tenant: Tenant, *, source: str, events: Sequence[Any], oldest: timedelta = MAX_LATE
) -> list[Result]:
    """Store a batch under a source; who may do so, and how old it may be, is decided before."""
    with transaction.atomic():
        locks.pass_with_usage(tenant.pk)
        now = clock.now()
        reader = _Reader(tenant, now, oldest)
        results: list[Result] = []
        rows: dict[str, _Row] = {}
        repeats: list[_Row] = []  # of a key within the batch: the first stands
        for index, given in enumerate(events):
            row = reader.read(index, given)
            if isinstance(row, Result):
                results.append(row)
                continue
            results.append(row.result)
            if rows.setdefault(row.result.key, row) is not row:
                repeats.append(row)
        known = _store(tenant.pk, source, rows) if rows else {}
        for row in repeats:
            key = row.result.key
            _settle(row.result, same=row.digest == known.get(key, rows[key].digest))
        if len(known) < len(rows):
            budgets.review(tenant)
    return results


def _store(tenant_id: int, source: str, rows: Mapping[str, _Row]) -> dict[str, str]:
    """Insert what is new and mark the rest; returns the keys that were known, with the hash of what stays."""
    # the server binds: a quarter of a megabyte of values is not written into the statement and parsed with it
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(STORE, columns(tenant_id, source, list(rows.values())))
        known_keys = rows.keys() - {key for (key,) in cursor.fetchall()}
        if not known_keys:
            return {}
        # stored before, or by somebody else while we waited: visible from the next statement on
        cursor.execute(_KNOWN, [tenant_id, source, list(known_keys)])
        known = {**dict.fromkeys(known_keys, ""), **dict(cursor.fetchall())}
    for key, digest in known.items():
        _settle(rows[key].result, same=digest == rows[key].digest)
    return known


def columns(tenant_id: int, source: str, rows: Sequence[_Row]) -> dict[str, Any]:
    """The parameters of STORE."""
    return {
        "tenant": tenant_id,
        "source": source,
        "key": _BETWEEN.join([row.result.key for row in rows]),
        "meter": _BETWEEN.join([row.price.meter for row in rows]),
        "sku": _BETWEEN.join([row.price.sku for row in rows]),
        "price": _BETWEEN.join([str(row.price.id) for row in rows]),
        "quantity": _BETWEEN.join([row.quantity for row in rows]),
        "time": _BETWEEN.join([row.time for row in rows]),
        "subject": _BETWEEN.join([row.alike.subject for row in rows]),
        "title": _BETWEEN.join([row.alike.title for row in rows]),
        "user": _BETWEEN.join([row.alike.user for row in rows]),
        "dims": _BETWEEN.join([row.alike.dims for row in rows]),
        "hash": _BETWEEN.join([row.digest for row in rows]),
    }


def _settle(result: Result, *, same: bool) -> None:
    if same:
        result.outcome = Status.DUPLICATE
        return
    result.outcome = Status.CONFLICT
    text = _("This key is already recorded with other values. The first stays; use a key of its own.")
    result.faults = [Fault(f"/events/{result.index}/key", "conflict", text)]


class _Reader:
    """Reads the events of one batch; what many of them say alike is checked once, with the database's help."""

    def __init__(self, tenant: Tenant, now: datetime, oldest: timedelta) -> None:
        self.tenant = tenant
        self.now = now
        self.oldest = oldest
        self.first, self.last = now - oldest, now + MAX_AHEAD
        self.meters: set[str] | None = None  # read when something is asked for that has no price
        self.known: dict[tuple[str, str], list[rating.Price]] = {}
        self.alike: dict[tuple[Any, ...], _Alike] = {}

    def read(self, index: int, given: Any) -> _Row | Result:
        """The event as it is stored, or a result that says what is wrong with it."""
        if not isinstance(given, dict):
            fault = Fault(f"/events/{index}", "invalid", _("An event is an object."))
            return Result(index, "", Status.INVALID, [fault])
        wrong: told.Wrong = []
        for name in () if given.keys() <= FIELDS else given.keys() - FIELDS:
            text = _("This field is not known. Known fields: %(known)s.")
            wrong.append((told.shown(name), "unknown_field", text % {"known": ", ".join(sorted(FIELDS))}))
        key = given.get("key")
        if type(key) is not str or not _KEY.fullmatch(key):
            wrong.append(("key", "invalid", _("A key has 1 to 200 visible ASCII characters.")))
            key = ""
        quantity = told.quantity(given.get("quantity"), wrong)
        moment, stated = self._time(given.get("event_time"), wrong)
        alike = self._alike(given, wrong)
        price = None if alike is None else alike.always or self._price(alike, given, moment, wrong)
        if wrong or alike is None or price is None:
            faults = [Fault(f"/events/{index}/{name}", code, text) for name, code, text in wrong]
            return Result(index, key, Status.INVALID, faults)
        said = f"{alike.before}{quantity}\0{stated}{alike.after}"
        return _Row(
            Result(index, key, Status.STORED),
            alike,
            price,
            quantity,
            stated or self.now.isoformat(),
            hashlib.sha256(said.encode()).hexdigest(),
        )

    def _alike(self, given: Mapping[str, Any], wrong: told.Wrong) -> _Alike | None:
        """What is known of events like this one; None where it is said what is wrong."""
        subject, labels = given.get("subject"), given.get("labels")
        texts = (
            given.get("meter"), given.get("sku", "standard"), subject, given.get("subject_title", subject),
            given.get("user", ""),
        )  # fmt: skip
        pairs = () if labels is None else tuple(labels.items()) if type(labels) is dict else None
        if pairs is None:
            return self._checked(texts, labels, given, wrong)
        try:
            found = self.alike.get((*texts, *pairs))
        except TypeError:  # a list or an object where a text should be
            found = None
        if found is None and (found := self._checked(texts, labels, given, wrong)):
            self.alike[*texts, *pairs] = found
        return found

    def _checked(
        self, texts: Sequence[Any], labels: Any, given: Mapping[str, Any], wrong: told.Wrong
    ) -> _Alike | None:
        meter, sku, subject, title, user = texts
        before = len(wrong)
        known = self._prices(meter, sku, wrong)
        if type(subject) is not str or not told.WORD.fullmatch(subject):
            text = _("A subject has 1 to 40 letters, digits and . _ : / -, such as a job's id.")
            wrong.append(("subject", "invalid", text))
        for name, value in (("subject_title", title), ("user", user)):
            if name in given and not (type(value) is str and len(value) <= 200 and value.isprintable()):
                wrong.append((name, "invalid", _("A text of at most 200 printable characters.")))
        dims = told.labels_of(labels, wrong)
        if len(wrong) > before:
            return None
        always = known[0] if known and known[0].covers(self.first) and known[0].covers(self.last) else None
        return _Alike(
            prices=known,
            always=always,
            subject=subject,
            title=title,
            user=user,
            dims=dims,
            before=f"{meter}\0{sku}\0",
            after=f"\0{subject}\0{user}\0{dims}",
        )

    def _prices(self, meter: Any, sku: Any, wrong: told.Wrong) -> list[rating.Price]:
        """Prices of a meter and SKU over the time we take."""
        if type(meter) is not str or not meter.isprintable() or not self._is_meter(meter):
            wrong.append(("meter", "unknown", _("There is no such meter. See /api/v1/meters.")))
            return []
        if type(sku) is not str or not told.WORD.fullmatch(sku):
            wrong.append(("sku", "invalid", _("This is not the name of a SKU.")))
            return []
        found = self.known.get((meter, sku))
        if found is None:
            found = prices.between(meter, sku, self.first, self.last, tenant=self.tenant)
            self.known[meter, sku] = found
        if not found and self.meters is None:
            self.meters = set(Meter.objects.values_list("key", flat=True))
            return self._prices(meter, sku, wrong)
        return found

    def _is_meter(self, meter: str) -> bool:
        """Whether there is such a meter, as far as we know yet: one with a price is asked for nothing more."""
        return self.meters is None or meter in self.meters

    def _price(
        self, alike: _Alike, given: Mapping[str, Any], moment: datetime | None, wrong: told.Wrong
    ) -> rating.Price | None:
        """The price of the moment; a moment that could not be read is told of already."""
        found = rating.price_at(alike.prices, moment) if moment else None
        if found is None and moment:
            text = _("There is no price for %(meter)s (%(sku)s) at this time. See /api/v1/prices.")
            names = {"meter": given["meter"], "sku": given.get("sku", "standard")}
            wrong.append(("sku", "no_price", text % names))
        return found

    def _time(self, given: Any, wrong: told.Wrong) -> tuple[datetime | None, str]:
        """The moment of the event, and how it is written in UTC if it was stated at all."""
        if given is None:
            return self.now, ""
        try:
            moment = datetime.fromisoformat(given) if type(given) is str and given.isascii() else None
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            text = _("A time needs its offset, such as 2026-11-01T00:00:00Z.")
            wrong.append(("event_time", "invalid" if moment is None else "naive", text))
        elif moment > self.last:
            text = _("This time lies more than 5 minutes ahead of the database's clock.")
            wrong.append(("event_time", "future", text))
        elif moment < self.first:
            text = _("Usage older than %(n)s days is not taken.") % {"n": self.oldest.days}
            wrong.append(("event_time", "too_late", text))
        elif _UTC_TIME.fullmatch(given):
            return moment, str(given)
        else:
            return moment, moment.astimezone(UTC).isoformat()
        return None, ""
