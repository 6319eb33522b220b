"""The cost explorer: any stretch of days, grouped one or two ways, as rows and as a chart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any

from django.db.models import F, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import TruncDate
from django.utils.translation import gettext as _

from billing import money
from billing.models import Meter, UsageDay, UsageHour
from billing.months import Month
from billing.services import completeness, reports
from billing.services.completeness import Completeness
from billing.services.extras import Extras, midnight, price_facts
from billing.services.scopes import Scope
from billing.streams import STREAMS, stream_of
from tenants.errors import Invalid
from tenants.models import Tenant

LONGEST_DAYS = 800
LONGEST_HOURS_DAYS = 31
MOST_SERIES = 5  # the rest of a chart is "Other"
MOST_BARS = 62  # longer stretches are drawn by month
TIMES = ("hour", "day", "month")
GROUPS = (*TIMES, "tenant", "user", "subject", "stream", "meter", "sku", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the explorer. `end` is not part; `label` names the label of group "label"."""

    start: date
    end: date
    by: str = "day"
    then: str = ""
    label: str = ""
    meter: str = ""
    sku: str = ""
    user: str = ""
    subject: str = ""
    where: str = ""  # only usage with this label: `team=vision`

    @property
    def groups(self) -> tuple[str, ...]:
        return (self.by, self.then) if self.then else (self.by,)

    @property
    def needs_hours(self) -> bool:
        """Days know no labels and no hours."""
        return bool(self.where) or bool({"hour", "label"} & set(self.groups))


@dataclass(slots=True, kw_only=True)
class Amounts:
    """Money of a row: at our own prices, at list prices, paid from credit, and the tax on it; exact."""

    net: Decimal = money.ZERO
    list: Decimal = money.ZERO
    credits: Decimal = money.ZERO
    tax: Decimal = money.ZERO

    def add(self, other: Amounts) -> None:
        add = money.EXACT.add
        self.net, self.list = add(self.net, other.net), add(self.list, other.list)
        if other.credits or other.tax:
            self.credits, self.tax = add(self.credits, other.credits), add(self.tax, other.tax)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One group's value of a row: its key for programs, its words for people."""

    key: str
    label: str
    hint: str = ""


@dataclass(slots=True, kw_only=True)
class Row:
    """One group of a report."""

    parts: tuple[Part, ...]
    amounts: Amounts
    prices: dict[int, dict[str, Any]]  # facts of every price of the report
    used: dict[int, Decimal] = field(default_factory=dict)  # price -> base units

    @property
    def quantity(self) -> tuple[Decimal, str] | None:
        """How much was used, where all of it is counted in one unit."""
        facts = [self.prices[price_id] for price_id in self.used]
        if len({(fact["meter"], fact["unit"]) for fact in facts}) != 1:
            return None
        parts = zip(self.used.values(), facts, strict=True)
        natural = [money.EXACT.divide(amount, fact["unit_size"]) for amount, fact in parts]
        return money.total(natural), facts[0]["unit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Costs of [start, end) in UTC days, exact, and how far they can be trusted."""

    question: Question
    currency: str
    rows: list[Row]
    total: Amounts
    chart: dict[str, Any]
    slots: str  # what a bar is: hour, day or month
    completeness: Completeness
    has_list: bool  # some price differs from the list
    has_credits: bool
    has_tax: bool


def explore(scope: Scope, question: Question) -> Report:
    """What the usage of a scope costs, as rows and as a chart of stacked bars."""
    _check(question)
    rows = _rows(scope, question)
    slots = _slots(question)
    fields = _fields(question, slots)
    extras = Extras(scope, question.start, question.end)
    if extras.needs_tenant:
        fields.append("tenant_id")
    if extras.needs_day and "day" not in fields:
        fields.append("day")
    priced = reports.priced(rows, *fields, currency=scope.currency)
    names = _Names(scope, question, rows, (row["price_id"] for row, _cost in priced))
    at = next((number for number, group in enumerate(question.groups) if group not in TIMES), None)
    found: dict[tuple[str, ...], Row] = {}
    places: dict[tuple[Any, ...], _Place] = {}
    told = tuple(dict.fromkeys(one for group in (*question.groups, slots) for one in _SEEN[group]))
    # bars that are not stacked by a group are stacked by service, which the price tells
    seen = itemgetter(*told, "price_id") if at is None else itemgetter(*told)
    add, plain = money.EXACT.add, not extras.needs_day
    for row, cost in priced:
        place = places.get(seen(row))
        if place is None:
            place = places[seen(row)] = _place(names, row, question, slots, at, found)
        place.cost = add(place.cost, cost)
        used, price_id = place.row.used, row["price_id"]
        used[price_id] = add(used[price_id], row["sum"]) if price_id in used else row["sum"]
        if not plain:
            place.row.amounts.add(Amounts(net=cost, **extras.of(row, names.prices[price_id], cost)))
    bars: dict[tuple[str, str], Decimal] = {}  # (slot, series) -> cost
    for place in places.values():
        bars[place.bar] = add(bars.get(place.bar, money.ZERO), place.cost)
        if plain:
            place.row.amounts.add(Amounts(net=place.cost, list=place.cost))
    total = Amounts()
    for one in found.values():
        total.add(one.amounts)
    ordered = _ordered(found, question)
    whole = completeness.of(scope, midnight(question.start), midnight(question.end))
    return Report(
        question=question,
        currency=scope.currency,
        rows=ordered,
        total=total,
        chart=_chart(bars, ordered, at, question, slots, scope.currency),
        slots=slots,
        completeness=whole,
        has_list=total.list != total.net,
        has_credits=bool(total.credits),
        has_tax=bool(total.tax),
    )


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where sums that say the same of time and groups go: a row of the table and a bar of the chart."""

    row: Row
    bar: tuple[str, str]  # (slot, series)
    cost: Decimal = money.ZERO


def _place(
    names: _Names,
    row: dict[str, Any],
    question: Question,
    slots: str,
    at: int | None,
    found: dict[tuple[str, ...], Row],
) -> _Place:
    parts = [names.part(group, row) for group in question.groups]
    # two tenants may name a subject alike: at home in different places, they are different rows
    key = tuple([f"{part.key} {part.hint}" if part.hint else part.key for part in parts])
    one = found.get(key)
    if one is None:
        one = found[key] = Row(parts=tuple(parts), amounts=Amounts(), prices=names.prices)
    series = parts[at] if at is not None else names.part("stream", row)
    return _Place(row=one, bar=(names.part(slots, row).key, series.key))


def label_names(scope: Scope) -> list[str]:
    """Every label some usage of the last 90 days carries."""
    since = datetime.now(UTC) - timedelta(days=90)
    rows = scope.rows(UsageHour.objects.filter(hour__gte=since)).exclude(labels={})
    return sorted({name for labels in rows.values_list("labels", flat=True).distinct() for name in labels})


def _check(question: Question) -> None:
    known = ", ".join(GROUPS)
    for pointer, group in (("/by", question.by), ("/then", question.then)):
        if group and group not in GROUPS:
            raise Invalid.at(pointer, "unknown", _("Group by one of %(known)s.") % {"known": known})
    if question.then and question.then == question.by:
        raise Invalid.at("/then", "same", _("The second group is another one than the first."))
    if "label" in question.groups and not question.label:
        raise Invalid.at("/label", "required", _("Say which label: a name such as team."))
    if question.where and "=" not in question.where:
        raise Invalid.at("/where", "invalid", _("Write a label as name=value, such as team=vision."))
    if question.end <= question.start:
        raise Invalid.at("/to", "order", _("The end lies after the start; the last day itself is not part."))
    days = (question.end - question.start).days
    most = LONGEST_HOURS_DAYS if "hour" in question.groups else LONGEST_DAYS
    if days > most:
        raise Invalid.at("/to", "too_long", _("A report covers at most %(n)s days.") % {"n": most})


def _rows(scope: Scope, question: Question) -> QuerySet[Any]:
    rows: Any
    if question.needs_hours:
        rows = UsageHour.objects.between(midnight(question.start), midnight(question.end))
        rows = rows.annotate(day=TruncDate("hour", tzinfo=UTC))
        if question.label:
            rows = rows.annotate(label=KeyTextTransform(question.label, "labels"))
        if question.where:
            name, _sign, value = question.where.partition("=")
            rows = rows.filter(labels__contains={name: value})
    else:
        rows = UsageDay.objects.between(question.start, question.end)
    rows = scope.rows(rows)
    wanted = {
        "price__meter": question.meter, "price__sku": question.sku, "user_label": question.user,
        "subject": question.subject,
    }  # fmt: skip
    return rows.filter(**{name: value for name, value in wanted.items() if value})


_COLUMNS = {
    "hour": ("hour",), "day": ("day",), "month": ("day",), "tenant": ("tenant_id",),
    "user": ("user_label", "tenant_id"), "subject": ("subject", "tenant_id"), "label": ("label",),
}  # fmt: skip


# what tells one value of a group from another
_SEEN = {**_COLUMNS, **dict.fromkeys(("stream", "meter", "sku"), ("price_id",))}


def _fields(question: Question, slots: str) -> list[str]:
    """The columns to group by; meter and SKU are known from the price."""
    time = "hour" if slots == "hour" else "day"
    columns = [time, *(one for group in question.groups for one in _COLUMNS.get(group, ()))]
    return list(dict.fromkeys(columns))


def _slots(question: Question) -> str:
    if "hour" in question.groups:
        return "hour"
    by_month = "month" in question.groups or (question.end - question.start).days > MOST_BARS
    return "month" if by_month else "day"


def _slot_of(row: dict[str, Any], slots: str) -> str:
    if slots == "hour":
        return f"{row['hour'].astimezone(UTC):%Y-%m-%d %H:00}"
    return str(Month.of(row["day"])) if slots == "month" else row["day"].isoformat()


class _Names:
    """Words for keys: read once for all rows."""

    def __init__(
        self, scope: Scope, question: Question, rows: QuerySet[Any], price_ids: Iterable[int]
    ) -> None:
        self.of_many = scope.tenant is None  # then a tenant's name tells two jobs of one name apart
        self.prices = price_facts(set(price_ids))
        self.known: dict[tuple[str, Any], Part] = {}
        self.meters = dict(Meter.objects.values_list("key", "title"))
        self.tenants: dict[int, tuple[str, str]] = {}
        self.titles: dict[str, str] = {}
        if {"tenant", "user", "subject"} & set(question.groups):
            known = Tenant.objects.values_list("id", "public_id", "name")
            self.tenants = {pk: (public_id, name) for pk, public_id, name in known}
        if "subject" in question.groups:
            # a renamed subject goes by its latest name
            latest = rows.order_by("subject", F("day").desc(), "-id").distinct("subject")
            self.titles = dict(latest.values_list("subject", "subject_title"))

    def part(self, group: str, row: dict[str, Any]) -> Part:
        """The words of one group's value; made once for each value, not for each row."""
        seen = (group, tuple([row[name] for name in _SEEN[group]]))
        found = self.known.get(seen)
        if found is None:
            found = self.known[seen] = self._part(group, row)
        return found

    def _part(self, group: str, row: dict[str, Any]) -> Part:
        if group in TIMES:
            slot = _slot_of(row, group)
            return Part(key=slot, label=slot)
        if group == "stream":
            stream = stream_of(self.prices[row["price_id"]]["meter"])
            return Part(key=stream, label=str(STREAMS[stream]))
        if group in ("meter", "sku"):
            price = self.prices[row["price_id"]]
            title = _(self.meters[price["meter"]])
            if group == "meter":
                return Part(key=price["meter"], label=title)
            return Part(key=f"{price['meter']} {price['sku']}", label=price["sku"], hint=title)
        if group == "label":
            return Part(key=row["label"] or "", label=row["label"] or _("without this label"))
        public_id, name = self.tenants[row["tenant_id"]]
        if group == "tenant":
            return Part(key=public_id, label=name)
        name = name if self.of_many else ""
        if group == "user":
            return Part(
                key=f"{public_id} {row['user_label']}", label=row["user_label"] or _("nobody"), hint=name
            )
        return Part(key=row["subject"], label=self.titles[row["subject"]], hint=name)


def _ordered(found: dict[tuple[str, ...], Row], question: Question) -> list[Row]:
    """Times in their order; names by what they cost; second groups inside their first."""
    first: dict[str, Decimal] = {}
    for key, row in found.items():
        first[key[0]] = money.EXACT.add(first.get(key[0], money.ZERO), row.amounts.net)

    def place(key: tuple[str, ...]) -> tuple[Any, ...]:
        rank: list[Any] = [key[0]] if question.by in TIMES else [-first[key[0]], key[0]]
        if question.then:
            rank += [key[1]] if question.then in TIMES else [-found[key].amounts.net, key[1]]
        return tuple(rank)

    return [found[key] for key in sorted(found, key=place)]


def _chart(
    bars: dict[tuple[str, str], Decimal],
    rows: list[Row],
    at: int | None,
    question: Question,
    slots: str,
    currency: str,
) -> dict[str, Any]:
    """Bars over time, stacked by the first group that is not time; by stream where there is none."""
    cost: dict[str, Decimal] = {}
    for (_slot, key), amount in bars.items():
        cost[key] = money.EXACT.add(cost.get(key, money.ZERO), amount)
    names = {key: str(STREAMS[key]) for key in cost} if at is None else {}
    if at is not None:
        names = {row.parts[at].key: row.parts[at].label for row in rows}
    top = set(sorted(cost, key=lambda key: (-cost[key], key))[:MOST_SERIES])
    labels = list(dict.fromkeys(_slot_names(question, slots)))
    other = _("Other")
    series: dict[str, dict[str, Decimal]] = {}
    for (slot, key), amount in bars.items():
        name = names[key] if key in top else other
        values = series.setdefault(name, dict.fromkeys(labels, money.ZERO))
        values[slot] = money.EXACT.add(values[slot], amount)
    order = sorted(series, key=lambda name: (name == other, -money.total(list(series[name].values())), name))
    return {
        "labels": [slot[5:] if slots == "hour" else slot for slot in labels],
        "series": [{"name": name, "values": [series[name][slot] for slot in labels]} for name in order],
        "unit": currency,
    }


def _slot_names(question: Question, slots: str) -> Iterable[str]:
    for number in range((question.end - question.start).days):
        day = question.start + timedelta(days=number)
        if slots == "hour":
            yield from (f"{day} {hour:02d}:00" for hour in range(24))
        else:
            yield str(Month.of(day)) if slots == "month" else day.isoformat()
