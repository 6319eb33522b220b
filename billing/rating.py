"""Usage and prices in, priced lines out. Pure: no Django, no clock, no float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise

from billing import money
from billing.tariffs import Tier, charge

KEPT = Decimal(1).scaleb(-money.KEPT_PLACES)


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
    model: str = "unit"  # see billing.tariffs
    tiers: tuple[Tier, ...] = ()
    included: Decimal = money.ZERO  # base units a month that cost nothing
    minimum: Decimal | None = None  # of a month's line
    maximum: Decimal | None = None

    @property
    def linear(self) -> bool:
        """Whether a part costs the same whatever else was used: then parts can be priced one by one."""
        return self.model == "unit" and not self.included and self.minimum is None and self.maximum is None

    def amount(self, quantity: Decimal) -> Decimal:
        """What this many base units cost, unrounded; of a price that is not linear: as a whole month's use."""
        if self.linear:
            return money.price_of(quantity, unit_price=self.unit_price, unit_size=self.unit_size)
        return charge(
            quantity,
            model=self.model,
            unit_price=self.unit_price,
            unit_size=self.unit_size,
            tiers=self.tiers,
            included=self.included,
            minimum=self.minimum,
            maximum=self.maximum,
        )

    def by_unit(self, quantity: Decimal) -> Decimal:
        """A quantity at the plain price of a unit, or of the first tier: a first guess for holds."""
        unit_price = self.tiers[0].unit_price if self.tiers else self.unit_price
        return money.price_of(quantity, unit_price=unit_price, unit_size=self.unit_size)

    def shares(self, quantities: Sequence[Decimal]) -> list[Decimal]:
        """What each part of a month's use costs, as it is stored; the parts sum to the whole exactly."""
        if self.linear:
            return [money.kept(self.amount(quantity)) for quantity in quantities]
        return money.split(money.kept(self.amount(money.total(list(quantities)))), quantities, step=KEPT)

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
    month: str = ""  # which month it counts in, of a price that is not linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """A frozen line of a price that is not linear: more use in its month takes it back and says it anew."""

    line_id: int
    started_at: datetime
    ended_at: datetime
    quantity: Decimal
    exact: Decimal
    amount: Decimal
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one subject used within a line, and its share of the unrounded amount."""

    subject: str
    subject_title: str
    quantity: Decimal
    exact: Decimal


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
    parts: tuple[Part, ...]
    month: str = ""
    corrects: int | None = None  # the frozen line this one takes back


Standing = Mapping[tuple[int, str], Billed]  # (price, month) -> what was billed of it last


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
    """Every UTC midnight inside (start, end); UTC month ends are among them."""
    found = []
    moment = datetime.combine(start.astimezone(UTC).date() + timedelta(days=1), time(), tzinfo=UTC)
    while moment < end:
        found.append(moment)
        moment += timedelta(days=1)
    return found


def cuts(prices: Sequence[Price], start: datetime, end: datetime) -> list[datetime | None]:
    """Where a stretch of usage must be cut: at price changes and at the end of every day."""
    edges = [edge for price in prices for edge in (price.valid_from, price.valid_to)]
    return [*midnights(start, end), *edges]


def price_at(prices: Iterable[Price], moment: datetime) -> Price | None:
    """The first price in force at a moment, or None."""
    return next((price for price in prices if price.covers(moment)), None)


def rate(usage: Iterable[Usage], *, standing: Standing | None = None) -> list[Line]:
    """Group usage by price into lines, on time before late, and round each line once.

    `standing` holds what is frozen already of prices that are not linear: its lines are taken back by id and
    the month is said anew as a whole, so that the sum is what one invoice would have said.
    """
    groups: dict[tuple[bool, str, str, str, datetime, int], list[Usage]] = {}
    for one in usage:
        price = one.price
        key = (one.late, one.month, price.meter, price.sku, price.valid_from, price.id)
        groups.setdefault(key, []).append(one)
    known = dict(standing or {})
    return [line for key in sorted(groups) for line in _lines(groups[key], known)]


def _lines(usage: list[Usage], standing: dict[tuple[int, str], Billed]) -> list[Line]:
    first = usage[0]
    # taken once: late and timely use of one month on one invoice must not take the same line back twice
    before = standing.pop((first.price.id, first.month), None)
    if before is None:
        return [_line(usage, ())]
    taken_back = Line(
        price=first.price,
        late=first.late,
        started_at=before.started_at,
        ended_at=before.ended_at,
        quantity=-before.quantity,
        exact=-before.exact,
        amount=-before.amount,
        parts=tuple(
            Part(
                subject=part.subject,
                subject_title=part.subject_title,
                quantity=-part.quantity,
                exact=-part.exact,
            )
            for part in before.parts
        ),
        month=first.month,
        corrects=before.line_id,
    )
    return [taken_back, _line(usage, before.parts, since=before.started_at, until=before.ended_at)]


def _line(
    usage: list[Usage],
    before: Sequence[Part],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Line:
    price = usage[0].price
    titles: dict[str, str] = {}
    used: dict[str, Decimal] = {}
    for part in before:
        titles[part.subject] = part.subject_title
        used[part.subject] = used.get(part.subject, money.ZERO) + part.quantity
    for one in sorted(usage, key=lambda one: (one.started_at, one.subject)):
        titles[one.subject] = one.subject_title
        used[one.subject] = money.EXACT.add(used.get(one.subject, money.ZERO), one.quantity)
    quantity = money.total(list(used.values()))
    exact = price.amount(quantity)
    starts = [one.started_at for one in usage] + ([since] if since else [])
    ends = [one.ended_at for one in usage] + ([until] if until else [])
    shares = price.shares(list(used.values()))
    return Line(
        price=price,
        late=usage[0].late,
        started_at=min(starts),
        ended_at=max(ends),
        quantity=quantity,
        exact=exact,
        amount=money.round_line(exact, price.currency),
        parts=tuple(
            Part(subject=subject, subject_title=titles[subject], quantity=used[subject], exact=share)
            for subject, share in zip(used, shares, strict=True)
        ),
        month=usage[0].month,
    )
