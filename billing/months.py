"""A billing month: a half-open stretch of time, in UTC or on an account's own calendar. Pure: no Django."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

_SHAPE = re.compile(r"^([0-9]{4})-(0[1-9]|1[0-2])$", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """`2026-11`: from the 1st 00:00:00 UTC up to, and without, the next 1st."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `YYYY-MM`, or raise ValueError."""
        found = _SHAPE.match(text)
        if found is None or not 2000 <= int(found[1]) <= 9000:
            raise ValueError(f"{text!r} is not a month; write it as 2026-11.")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of(cls, moment: datetime | date) -> Self:
        """The month a moment falls in."""
        if isinstance(moment, datetime):
            moment = moment.astimezone(UTC)
        return cls(moment.year, moment.month)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    @property
    def first(self) -> date:
        return date(self.year, self.number, 1)

    @property
    def start(self) -> datetime:
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        return self.next.start

    @property
    def next(self) -> Self:
        return type(self)(self.year + self.number // 12, self.number % 12 + 1)

    @property
    def previous(self) -> Self:
        return type(self).of(self.first - timedelta(days=1))

    @property
    def days(self) -> list[date]:
        """Every day of the month."""
        count = (self.end - self.start).days
        return [self.first + timedelta(days=day) for day in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """Where an account's months begin: at local midnight of the anchor day, or of a shorter month's last day.

    A month is named after the one its first day lies in. Both ends are instants, so a month with a change of
    the clock is an hour shorter or longer, as the time itself was.
    """

    zone: str = "UTC"
    anchor: int = 1

    @property
    def is_usual(self) -> bool:
        """Whether these are UTC months from the 1st."""
        return self.zone == "UTC" and self.anchor == 1

    def first_day(self, month: Month) -> date:
        """The local day a month begins on."""
        last = calendar.monthrange(month.year, month.number)[1]
        return date(month.year, month.number, min(self.anchor, last))

    def start(self, month: Month) -> datetime:
        """The first instant of a month, as UTC."""
        first = self.first_day(month)
        return datetime(first.year, first.month, first.day, tzinfo=ZoneInfo(self.zone)).astimezone(UTC)

    def end(self, month: Month) -> datetime:
        """The first instant that is not part of a month any more."""
        return self.start(month.next)

    def month_of(self, moment: datetime) -> Month:
        """The month a moment falls in."""
        local = moment.astimezone(ZoneInfo(self.zone))
        month = Month(local.year, local.month)
        return month if self.start(month) <= moment else month.previous

    def edges(self, start: datetime, end: datetime) -> list[datetime]:
        """Every first instant of a month inside (start, end)."""
        found, month = [], self.month_of(start)
        while (edge := self.end(month)) < end:
            found.append(edge)
            month = month.next
        return found
