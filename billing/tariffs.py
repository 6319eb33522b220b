"""How a month's quantity becomes an amount: per unit, graduated, volume or package. Pure: no Django.

Every amount is per natural unit (a GPU-hour, a million tokens); quantities are in base units. What is included
is taken off first; a minimum or maximum bounds the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from billing import money

MODELS = ("unit", "graduated", "volume", "package")
_PLACES = Decimal(1).scaleb(-8)  # of a stored price


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """The price up to and with a quantity in natural units; the last tier has no end. `flat` is paid once."""

    up_to: Decimal | None
    unit_price: Decimal
    flat: Decimal = money.ZERO


def charge(
    quantity: Decimal,
    *,
    model: str,
    unit_price: Decimal,
    unit_size: Decimal,
    tiers: Sequence[Tier] = (),
    included: Decimal = money.ZERO,
    minimum: Decimal | None = None,
    maximum: Decimal | None = None,
) -> Decimal:
    """What a month's quantity in base units costs, unrounded."""
    billable = max(money.EXACT.subtract(quantity, included), money.ZERO)
    if model == "graduated":
        amount = _graduated(billable, unit_size, tiers)
    elif model == "volume":
        amount = _volume(billable, unit_size, tiers)
    elif model == "package":
        packages = money.EXACT.divide(billable, unit_size).to_integral_value(
            rounding=ROUND_CEILING, context=money.EXACT
        )
        amount = money.EXACT.multiply(packages, unit_price)
    else:
        amount = money.price_of(billable, unit_price=unit_price, unit_size=unit_size)
    if minimum is not None:
        amount = max(amount, minimum)
    return amount if maximum is None else min(amount, maximum)


def _graduated(billable: Decimal, unit_size: Decimal, tiers: Sequence[Tier]) -> Decimal:
    """Each tier prices what lies within it."""
    amount, start = money.ZERO, money.ZERO
    for tier in tiers:
        end = billable if tier.up_to is None else min(billable, money.EXACT.multiply(tier.up_to, unit_size))
        if end > start:
            within = money.price_of(end - start, unit_price=tier.unit_price, unit_size=unit_size)
            amount = money.total([amount, within, tier.flat])
            start = end
    return amount


def _volume(billable: Decimal, unit_size: Decimal, tiers: Sequence[Tier]) -> Decimal:
    """The tier the whole quantity falls into prices all of it."""
    if not billable:
        return money.ZERO
    for tier in tiers:
        if tier.up_to is None or billable <= money.EXACT.multiply(tier.up_to, unit_size):
            whole = money.price_of(billable, unit_price=tier.unit_price, unit_size=unit_size)
            return money.EXACT.add(whole, tier.flat)
    raise ValueError("the last tier has no end")


def read_tiers(given: Sequence[Mapping[str, Any]]) -> tuple[Tier, ...]:
    """Tiers as they are stored: decimals as text; raises ValueError that says what is wrong."""
    found: list[Tier] = []
    for number, one in enumerate(given, start=1):
        unknown = set(one) - {"up_to", "unit_price", "flat"}
        if unknown or "unit_price" not in one:
            raise ValueError(f"Tier {number} has up_to, unit_price and, if wanted, flat.")
        up_to = one.get("up_to")
        tier = Tier(
            up_to=None if up_to is None else _number(up_to, number),
            unit_price=_number(one["unit_price"], number),
            flat=_number(one.get("flat", "0"), number),
        )
        if found and (found[-1].up_to is None or (tier.up_to is not None and tier.up_to <= found[-1].up_to)):
            raise ValueError(f"Tier {number} ends after the tier before it.")
        found.append(tier)
    if not found or found[-1].up_to is not None:
        raise ValueError("The last tier has no up_to, so that every quantity has a price.")
    return tuple(found)


def written(tiers: Sequence[Tier]) -> list[dict[str, str | None]]:
    """Tiers as they are stored."""
    return [
        {
            "up_to": None if tier.up_to is None else money.plain(tier.up_to),
            "unit_price": money.plain(tier.unit_price),
            "flat": money.plain(tier.flat),
        }
        for tier in tiers
    ]


def _number(text: Any, number: int) -> Decimal:
    if not isinstance(text, str) or not text.isascii():
        raise ValueError(f'Tier {number}: write amounts as text, such as "0.25".')
    try:
        value = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"Tier {number}: {text!r} is not a number.") from None
    if not value.is_finite() or value < 0 or value >= Decimal(10) ** 12:
        raise ValueError(f"Tier {number}: {text!r} is not zero or more and below 10^12.")
    if value != money.EXACT.quantize(value, _PLACES):
        raise ValueError(f"Tier {number}: {text!r} has more than eight decimals.")
    return value
