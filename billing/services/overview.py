"""The first page of a report: where this month stands, where it goes, and whether the books can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.db.models import Q, Sum
from django.db.models.functions import TruncDate

from billing import clock, money
from billing.models import Allocation, BillingAccount, CreditGrant, UsageDay, UsageHour
from billing.months import Calendar, Month
from billing.services import completeness, costcard, finance, reports
from billing.services.completeness import Completeness
from billing.services.extras import midnight
from billing.services.scopes import Scope

PACE_DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Money of a scope in one currency, unrounded. None: not known."""

    month: Month
    calendar: Calendar  # of the tenant; of everybody: UTC months
    now: datetime
    currency: str
    spent: Decimal  # this month to this instant, with what runs
    before: Decimal  # the same days and hours of the month before
    forecast: Decimal | None
    per_day: Decimal  # of the last 24 whole hours
    per_hour_now: Decimal  # what is held this instant, at today's prices
    running: int  # allocations that are held
    completeness: Completeness
    parked: Sequence[BillingAccount]
    owed: Decimal | None  # on frozen invoices; None: this reader sees no invoices
    overdue: Decimal | None
    credit: Decimal | None

    @property
    def change(self) -> Decimal | None:
        """How much more than in the same days of the month before, as a share; None without a before."""
        return money.EXACT.divide(self.spent - self.before, self.before) if self.before else None

    @property
    def fall(self) -> Decimal | None:
        """How much less, as a positive share."""
        return -self.change if self.change is not None else None

    @property
    def credit_days(self) -> int | None:
        """How many days the credit lasts at the pace of the last 24 hours."""
        if not self.credit or not self.per_day:
            return None
        return int(min(money.EXACT.divide(self.credit, self.per_day), Decimal(9999)))


def overview(scope: Scope, *, with_invoices: bool) -> Overview:
    """Where the running month stands; what is owed and prepaid only for those who may see invoices."""
    now = clock.now()
    calendar = calendar_of(scope)
    month = calendar.month_of(now)
    start, end, earlier = calendar.start(month), calendar.end(month), calendar.start(month.previous)
    held = list(_held(scope))
    spent = money.total([_exactly(scope, start, end), reports.unsettled(_held(scope), since=start, now=now)])
    hour = now.replace(minute=0, second=0, microsecond=0)
    gone = min(now - start, start - earlier)
    accounts = scope.rows(BillingAccount.objects.exclude(parked_at=None))
    ages = finance.aging(scope, now) if with_invoices else None
    owed = money.total([amount for _count, amount in ages.values()]) if ages else None
    return Overview(
        owed=owed,
        overdue=owed - ages["not_due"][1] if ages and owed is not None else None,
        credit=_credit(scope, now) if with_invoices else None,
        month=month,
        calendar=calendar,
        now=now,
        currency=scope.currency,
        spent=spent,
        before=_exactly(scope, earlier, earlier + gone),
        forecast=forecast(scope, spent, now, end=end),
        per_day=_hours(scope, hour - timedelta(days=1), hour),
        per_hour_now=money.total([costcard.per_hour(one, scope.currency, now) for one in held]),
        running=len(held),
        completeness=completeness.of(scope, start, now),
        parked=list(accounts.select_related("tenant").order_by("parked_at")),
    )


def calendar_of(scope: Scope) -> Calendar:
    """Where the months of a scope begin: a tenant's own, UTC's for everybody. A report makes no account."""
    found = BillingAccount.objects.filter(tenant=scope.tenant).first() if scope.tenant else None
    return found.calendar if found else Calendar()


def forecast(scope: Scope, spent: Decimal, now: datetime, *, end: datetime | None = None) -> Decimal | None:
    """What this month will have cost: the rest of it at the pace of the last seven whole days, or of those there were.

    `end` is the month's (None: the UTC month's). None while less than a day is known.
    """
    today = midnight(now.date())
    days = scope.rows(UsageDay.objects.filter(price__currency=scope.currency))
    first = days.order_by("day").values_list("day", flat=True).first()
    known = min(PACE_DAYS, (now.date() - first).days) if first else 0
    if known < 1:
        return None
    pace = money.EXACT.divide(_days(scope, today - timedelta(days=known), today), known)
    left = Decimal(((end or Month.of(now).end) - now) // timedelta(seconds=1))
    return money.EXACT.add(spent, money.price_of(left, unit_price=pace, unit_size=Decimal(86400)))


def _credit(scope: Scope, now: datetime) -> Decimal | None:
    """Credit that may still pay for something; None where nobody ever had any."""
    grants = scope.rows(CreditGrant.objects.filter(currency=scope.currency))
    if not grants.exists():
        return None
    alive = grants.filter(Q(expires_at=None) | Q(expires_at__gt=now))
    found: Decimal | None = alive.aggregate(sum=Sum("remaining"))["sum"]
    return found or money.ZERO


def _held(scope: Scope):  # type: ignore[no-untyped-def]
    return scope.rows(Allocation.objects.open()).select_related("tenant")


def _days(scope: Scope, start: datetime, end: datetime) -> Decimal:
    rows = scope.rows(UsageDay.objects.between(start.date(), end.date()))
    return money.total([cost for _row, cost in reports.priced(rows, currency=scope.currency)])


def _hours(scope: Scope, start: datetime, end: datetime) -> Decimal:
    rows = scope.rows(UsageHour.objects.between(start, end)).annotate(day=TruncDate("hour", tzinfo=UTC))
    return money.total([cost for _row, cost in reports.priced(rows, currency=scope.currency)])


def _exactly(scope: Scope, start: datetime, end: datetime) -> Decimal:
    """Whole UTC days from the sums of days, the rest at both ends from hours; the hour that runs counts whole.

    Where a month begins within a UTC hour, that hour counts as the month's before.
    """
    first, last = midnight(start.date()), midnight(end.date())
    if start > first:
        first += timedelta(days=1)
    if first > last:
        return _hours(scope, start, end)
    edges = [_hours(scope, begin, until) for begin, until in ((start, first), (last, end)) if begin < until]
    return money.total([_days(scope, first, last), *edges])
