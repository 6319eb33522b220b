"""Which credit pays for which usage. Pure: no Django, no clock, no float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

_FAR = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Credit as far as burning cares: how much is left, for when and for what."""

    id: int
    remaining: Decimal
    priority: int
    starts_at: datetime
    expires_at: datetime | None
    is_promo: bool
    created_at: datetime
    meters: frozenset[str] = frozenset()  # empty: any

    def pays(self, at: datetime, meter: str) -> bool:
        """Whether usage of this moment and meter may burn it."""
        in_time = self.starts_at <= at and (self.expires_at is None or at < self.expires_at)
        return in_time and (not self.meters or meter in self.meters)

    @property
    def order(self) -> tuple[int, datetime, bool, datetime, int]:
        """Priority, earliest expiry, given before paid, age, id."""
        expiry = self.expires_at or _FAR
        return (self.priority, expiry, not self.is_promo, self.created_at, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payable:
    """An amount to pay for usage of one meter from one moment on, up to the next change of any lot."""

    at: datetime
    meter: str
    amount: Decimal


def burn(payables: Iterable[Payable], lots: Sequence[Lot]) -> dict[int, Decimal]:
    """How much of each lot pays for these, oldest usage first: {lot id: amount above zero}."""
    left = {lot.id: lot.remaining for lot in lots}
    ordered = sorted(lots, key=lambda lot: lot.order)
    for payable in sorted(payables, key=lambda one: (one.at, one.meter)):
        owed = payable.amount
        for lot in ordered:
            if owed <= 0:
                break
            if left[lot.id] > 0 and lot.pays(payable.at, payable.meter):
                taken = min(owed, left[lot.id])
                left[lot.id] -= taken
                owed -= taken
    return {lot.id: lot.remaining - left[lot.id] for lot in lots if left[lot.id] != lot.remaining}


def moments(lots: Iterable[Lot]) -> list[datetime]:
    """When any lot begins or ends: between two of these every moment is alike."""
    edges = {lot.starts_at for lot in lots} | {lot.expires_at for lot in lots if lot.expires_at}
    return sorted(edges)
