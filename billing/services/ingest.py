"""Usage told from outside, in batches: each event once, and every refusal beside the event it is about."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from django.db import connection, transaction
from django.utils.translation import gettext as _

from billing import clock, money, rating
from billing.models import Meter
from billing.services import budgets, locks, prices
from billing.services.metering import MAX_AHEAD, MAX_LATE
from tenants.actor import Actor
from tenants.errors import Fault, Invalid
from tenants.models import Tenant
from tenants.permissions import require

MOST_EVENTS = 1000
MOST_LABELS = 8
NAME_SPACE = "api:"  # of sources from outside: nobody takes a key away from our own meters
FIELDS = frozenset({
    "key", "meter", "sku", "quantity", "event_time", "subject", "subject_title", "user", "labels",
})  # fmt: skip
_SOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,39}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,26}(\.[0-9]{1,12})?", re.ASCII)
_SIGNED = re.compile(r"[+-]?[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?", re.ASCII)
_BETWEEN = "\x1f"  # no value holds it: every text here is printable

# One statement for a batch, in the order of the keys: two batches with the same keys wait, they never lock each
# other out. Columns travel as joined text, which both sides take apart fastest. A known key is looked up by itself:
# a join might read all of a tenant's events for a batch that is sent again.
STORE = """
with given as (
  select * from unnest(
    string_to_array(%(key)s, chr(31)), string_to_array(%(meter)s, chr(31)), string_to_array(%(sku)s, chr(31)),
    string_to_array(%(price)s, chr(31)), string_to_array(%(quantity)s, chr(31)),
    string_to_array(%(time)s, chr(31)), string_to_array(%(subject)s, chr(31)),
    string_to_array(%(title)s, chr(31)), string_to_array(%(user)s, chr(31)),
    string_to_array(%(dims)s, chr(31)), string_to_array(%(hash)s, chr(31))
  ) as g (key, meter, sku, price, quantity, at, subject, title, person, dims, hash)
), stored as (
  insert into billing_usageevent (tenant_id, source, key, meter_id, sku, price_id, quantity, event_time,
    ended_at, created_at, subject, subject_title, user_label, dims, payload_hash)
  select %(tenant)s, %(source)s, key, meter, sku, price::bigint, quantity::numeric, at::timestamptz,
    at::timestamptz, clock_timestamp(), subject, coalesce(title, ''), coalesce(person, ''), dims::jsonb, hash
  from given order by key
  on conflict (tenant_id, source, key) do nothing
  returning key
)
select given.key, known.payload_hash from given left join stored using (key)
left join lateral (
  select payload_hash from billing_usageevent e
  where e.tenant_id = %(tenant)s and e.source = %(source)s and e.key = given.key limit 1
) known on true
where stored.key is null
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


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of one event, and why."""

    index: int
    key: str
    outcome: Status
    faults: list[Fault] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Row:
    """A valid event on its way to its columns."""

    result: Result
    meter: str
    sku: str
    price_id: int
    quantity: str
    time: str
    subject: str
    title: str
    user: str
    dims: str
    digest: str


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
    with connection.cursor() as cursor:
        cursor.execute(STORE, columns(tenant_id, source, list(rows.values())))
        known = dict(cursor.fetchall())
        if unseen := [key for key, digest in known.items() if digest is None]:
            # stored by somebody else while we waited: visible from the next statement on
            cursor.execute(_KNOWN, [tenant_id, source, unseen])
            known.update(cursor.fetchall())
    for key, digest in known.items():
        _settle(rows[key].result, same=digest == rows[key].digest)
    return known


def columns(tenant_id: int, source: str, rows: Sequence[_Row]) -> dict[str, Any]:
    """The parameters of STORE."""
    return {
        "tenant": tenant_id,
        "source": source,
        "key": _BETWEEN.join([row.result.key for row in rows]),
        "meter": _BETWEEN.join([row.meter for row in rows]),
        "sku": _BETWEEN.join([row.sku for row in rows]),
        "price": _BETWEEN.join([str(row.price_id) for row in rows]),
        "quantity": _BETWEEN.join([row.quantity for row in rows]),
        "time": _BETWEEN.join([row.time for row in rows]),
        "subject": _BETWEEN.join([row.subject for row in rows]),
        "title": _BETWEEN.join([row.title for row in rows]),
        "user": _BETWEEN.join([row.user for row in rows]),
        "dims": _BETWEEN.join([row.dims for row in rows]),
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
    """Reads the events of one batch; what is asked of the database is asked once a meter and SKU."""

    def __init__(self, tenant: Tenant, now: datetime, oldest: timedelta) -> None:
        self.tenant = tenant
        self.now = now
        self.oldest = oldest
        self.first, self.last = now - oldest, now + MAX_AHEAD
        self.meters = set(Meter.objects.values_list("key", flat=True))
        self.known: dict[tuple[str, str], list[rating.Price]] = {}
        self.always: dict[tuple[str, str], rating.Price] = {}  # in force over all of the time we take
        self.subjects: set[str] = set()  # good ones of this batch: most come many times
        self.texts: set[str] = {""}
        self.labels: dict[tuple[tuple[str, str], ...], str] = {}

    def read(self, index: int, given: Any) -> _Row | Result:
        """The event as it is stored, or a result that says what is wrong with it."""
        if not isinstance(given, dict):
            fault = Fault(f"/events/{index}", "invalid", _("An event is an object."))
            return Result(index=index, key="", outcome=Status.INVALID, faults=[fault])
        wrong: list[tuple[str, str, str]] = []
        for name in () if given.keys() <= FIELDS else given.keys() - FIELDS:
            text = _("This field is not known. Known fields: %(known)s.")
            wrong.append((_shown(name), "unknown_field", text % {"known": ", ".join(sorted(FIELDS))}))
        key = given.get("key")
        if type(key) is not str or not _KEY.fullmatch(key):
            wrong.append(("key", "invalid", _("A key has 1 to 200 visible ASCII characters.")))
            key = ""
        meter, sku = given.get("meter"), given.get("sku", "standard")
        quantity = self._quantity(given.get("quantity"), wrong)
        moment, stated = self._time(given.get("event_time"), wrong)
        price = self._price(meter, sku, moment, wrong)
        subject = given.get("subject")
        if type(subject) is str and (subject in self.subjects or _WORD.fullmatch(subject)):
            self.subjects.add(subject)
        else:
            text = _("A subject has 1 to 40 letters, digits and . _ : / -, such as a job's id.")
            wrong.append(("subject", "invalid", text))
        title = self._text(given, "subject_title", subject, wrong)
        user = self._text(given, "user", "", wrong)
        dims = self._labels(given.get("labels"), wrong)
        if wrong or price is None:
            faults = [Fault(f"/events/{index}/{name}", code, text) for name, code, text in wrong]
            return Result(index=index, key=key, outcome=Status.INVALID, faults=faults)
        said = f"{meter}\0{sku}\0{quantity}\0{stated}\0{subject}\0{user}\0{dims}"
        return _Row(
            result=Result(index=index, key=key, outcome=Status.STORED),
            meter=price.meter,
            sku=price.sku,
            price_id=price.id,
            quantity=quantity,
            time=stated or self.now.isoformat(),
            subject=str(subject),
            title=title,
            user=user,
            dims=dims,
            digest=hashlib.sha256(said.encode()).hexdigest(),
        )

    def _quantity(self, given: Any, wrong: list[tuple[str, str, str]]) -> str:
        # the common cases first: a whole number, then a plain one, as JSON wrote it or as text
        if isinstance(given, str):
            if given.isdigit() and given.isascii() and given[0] != "0" and len(given) <= 26:
                return str(given)
            if _NUMBER.fullmatch(given):
                return money.plain(Decimal(given))
        amount = _decimal(given)
        if amount is None:
            wrong.append(("quantity", "invalid", _("A quantity is a finite number, such as 12.5.")))
        elif amount < 0:
            text = _("A quantity is zero or more. What was too much is taken back by a credit note.")
            wrong.append(("quantity", "negative", text))
        elif amount >= Decimal(10) ** 26:
            wrong.append(("quantity", "too_large", _("A quantity is smaller than 10^26.")))
        elif amount != money.kept(amount):
            wrong.append(("quantity", "too_fine", _("A quantity has at most 12 decimal places.")))
        else:
            return money.plain(amount)
        return ""

    def _time(self, given: Any, wrong: list[tuple[str, str, str]]) -> tuple[datetime | None, str]:
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
        else:
            return moment, (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).isoformat()
        return None, ""

    def _price(
        self, meter: Any, sku: Any, moment: datetime | None, wrong: list[tuple[str, str, str]]
    ) -> rating.Price | None:
        if type(meter) is str and type(sku) is str and (meter, sku) in self.always:
            return self.always[meter, sku]
        if type(meter) is not str or meter not in self.meters:
            wrong.append(("meter", "unknown", _("There is no such meter. See /api/v1/meters.")))
            return None
        if type(sku) is not str or not _WORD.fullmatch(sku):
            wrong.append(("sku", "invalid", _("This is not the name of a SKU.")))
            return None
        if moment is None:
            return None
        known = self.known.get((meter, sku))
        if known is None:
            known = self.known[meter, sku] = prices.between(
                meter, sku, self.first, self.last, tenant=self.tenant
            )
            if known and known[0].covers(self.first) and known[0].covers(self.last):
                self.always[meter, sku] = known[0]
        price = rating.price_at(known, moment)
        if price is None:
            text = _("There is no price for %(meter)s (%(sku)s) at this time. See /api/v1/prices.")
            wrong.append(("sku", "no_price", text % {"meter": meter, "sku": sku}))
        return price

    def _text(self, given: Mapping[str, Any], name: str, default: Any, wrong: list[Any]) -> str:
        value = given.get(name, default)
        if type(value) is str and (value in self.texts or (len(value) <= 200 and value.isprintable())):
            self.texts.add(value)
            return value
        if name in given:
            wrong.append((name, "invalid", _("A text of at most 200 printable characters.")))
        return ""

    def _labels(self, given: Any, wrong: list[tuple[str, str, str]]) -> str:
        if not given and (given is None or given == {}):
            return "{}"
        if not isinstance(given, dict) or len(given) > MOST_LABELS:
            wrong.append(("labels", "invalid", _("Labels are an object of at most 8 texts.")))
            return ""
        pairs = tuple(given.items())
        if all(type(value) is str for _name, value in pairs) and pairs in self.labels:
            return self.labels[pairs]
        before = len(wrong)
        for name, value in pairs:
            if not _WORD.fullmatch(name):
                wrong.append((f"labels/{_shown(name)}", "invalid", _("This is not the name of a label.")))
            elif type(value) is not str or not 1 <= len(value) <= 60 or not value.isprintable():
                wrong.append((f"labels/{name}", "invalid", _("A label is 1 to 60 printable characters.")))
        told = json.dumps({"labels": given}, sort_keys=True)
        if len(wrong) == before:
            self.labels[pairs] = told
        return told


def _decimal(given: Any) -> Decimal | None:
    """A number written in ASCII digits, or None. `１２`, NaN, Infinity and 1e99999999999999999999 are none."""
    if isinstance(given, bool) or not isinstance(given, str | int | Decimal):
        return None
    if isinstance(given, str) and not (any("0" <= one <= "9" for one in given) and _SIGNED.fullmatch(given)):
        return None
    try:
        amount = Decimal(given)
    except (ArithmeticError, ValueError):
        return None
    return amount if amount.is_finite() else None


def _shown(name: str) -> str:
    """The name of an unknown field as a part of a JSON pointer."""
    plain = name if name.isprintable() else ascii(name)
    return plain[:60].replace("~", "~0").replace("/", "~1")
