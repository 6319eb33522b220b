"""Usage and prices in, priced lines out. Pure: no Django, no clock, no float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise

from billing import money


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One dated price: so much per natural unit (a GPU-hour), which holds `unit_size` base units (3600 s)."""

    id: int
    meter: str
    sku: str
    currency: str
    unit: str  # the natural unit, such as "GPU-hour"
    unit_price: Decimal
    unit_size: Decimal
    valid_from: datetime
    valid_to: datetime | None

    def amount(self, quantity: Decimal) -> Decimal:
        """What this many base units cost, unrounded."""
        return money.price_of(quantity, unit_price=self.unit_price, unit_size=self.unit_size)

    def covers(self, moment: datetime) -> bool:
        return self.valid_from <= moment and (self.valid_to is None or moment < self.valid_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one subject used at one price, summed over a stretch of time."""

    price: Price
    quantity: Decimal
    started_at: datetime
    ended_at: datetime
    subject: str
    subject_title: str
    late: bool = False  # it happened in a period whose invoice is already frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One invoice line: all usage of one price, rounded once; its parts say which subject used what."""

    price: Price
    late: bool
    started_at: datetime
    ended_at: datetime
    quantity: Decimal
    exact: Decimal
    amount: Decimal
    parts: tuple[Usage, ...]


def seconds(start: datetime, end: datetime) -> Decimal:
    """The exact length of [start, end) in seconds, to the microsecond."""
    return Decimal((end - start) // timedelta(microseconds=1)).scaleb(-6)


def split(start: datetime, end: datetime, cuts: Iterable[datetime | None]) -> list[tuple[datetime, datetime]]:
    """[start, end) in pieces, cut at every given moment inside it; nothing for an empty stretch."""
    if end <= start:
        return []
    edges = [start, *sorted({cut for cut in cuts if cut is not None and start < cut < end}), end]
    return list(pairwise(edges))


def midnights(start: datetime, end: datetime) -> list[datetime]:
    """Every UTC midnight inside (start, end); month ends are among them."""
    found = []
    moment = datetime.combine(start.astimezone(UTC).date() + timedelta(days=1), time(), tzinfo=UTC)
    while moment < end:
        found.append(moment)
        moment += timedelta(days=1)
    return found


def cuts(prices: Sequence[Price], start: datetime, end: datetime) -> list[datetime]:
    """Where a stretch of usage must be cut: at price changes and at the end of every day, so every month."""
    return [*midnights(start, end), *(price.valid_from for price in prices)]


def price_at(prices: Iterable[Price], moment: datetime) -> Price | None:
    """The price in force at a moment, or None."""
    return next((price for price in prices if price.covers(moment)), None)


def rate(usage: Iterable[Usage]) -> list[Line]:
    """Group usage by price into lines, on time before late, and round each line once."""
    groups: dict[tuple[bool, str, str, datetime, int], list[Usage]] = {}
    for one in usage:
        key = (one.late, one.price.meter, one.price.sku, one.price.valid_from, one.price.id)
        groups.setdefault(key, []).append(one)
    return [_line(groups[key]) for key in sorted(groups)]


def _line(parts: list[Usage]) -> Line:
    price = parts[0].price
    quantity = money.total([part.quantity for part in parts])
    exact = price.amount(quantity)
    return Line(
        price=price,
        late=parts[0].late,
        started_at=min(part.started_at for part in parts),
        ended_at=max(part.ended_at for part in parts),
        quantity=quantity,
        exact=exact,
        amount=money.round_line(exact, price.currency),
        parts=tuple(sorted(parts, key=lambda part: (part.started_at, part.subject))),
    )
