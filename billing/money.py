"""Decimal and the one rounding rule. Pure: no Django, no float anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import (
    ROUND_FLOOR,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    InvalidOperation,
    Overflow,
)

# 38 digits of quantity times 20 of price still fit without loss; a float that slips in raises
EXACT = Context(
    prec=80, rounding=ROUND_HALF_UP, traps=[InvalidOperation, DivisionByZero, Overflow, FloatOperation]
)
ZERO = Decimal(0)
KEPT_PLACES = 12  # digits after the point of stored quantities and exact amounts

# ISO 4217 exponents that are not 2
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"
_PLACES = {code: count for count, codes in ((0, _NONE), (3, _THREE), (4, _FOUR)) for code in codes.split(" ")}


def places(currency: str) -> int:
    """How many digits after the point this currency is paid in."""
    return _PLACES.get(currency, 2)


def price_of(quantity: Decimal, *, unit_price: Decimal, unit_size: Decimal) -> Decimal:
    """What a quantity in base units costs at a price per natural unit, unrounded."""
    return EXACT.divide(EXACT.multiply(quantity, unit_price), unit_size)


def total(amounts: list[Decimal]) -> Decimal:
    """The exact sum."""
    found = ZERO
    for amount in amounts:
        found = EXACT.add(found, amount)
    return found


def kept(amount: Decimal) -> Decimal:
    """An exact amount as it is stored and exported: twelve digits after the point."""
    return EXACT.quantize(amount, Decimal(1).scaleb(-KEPT_PLACES))


def round_line(amount: Decimal, currency: str) -> Decimal:
    """Round half up at the currency's exponent. Called once per invoice line, and nowhere else."""
    return EXACT.quantize(amount, Decimal(1).scaleb(-places(currency)))


def percent_of(amount: Decimal, percent: Decimal) -> Decimal:
    """So many per cent of an amount, unrounded."""
    return EXACT.divide(EXACT.multiply(amount, percent), Decimal(100))


def split(whole: Decimal, weights: Sequence[Decimal], *, step: Decimal) -> list[Decimal]:
    """Divide a multiple of `step` by weights into multiples of `step` that sum to it: the largest remainder wins.

    Equal remainders go to the earlier part, so the same input always gives the same parts.
    """
    size = total(list(weights))
    if size <= 0:
        weights, size = [Decimal(1)] * len(weights), Decimal(len(weights))
    steps = EXACT.divide(whole, step)
    shares = [EXACT.divide(EXACT.multiply(steps, weight), size) for weight in weights]
    floors = [share.to_integral_value(rounding=ROUND_FLOOR, context=EXACT) for share in shares]
    left = int(steps - total(floors))
    order = sorted(range(len(shares)), key=lambda at: (floors[at] - shares[at], at))
    for at in order[:left]:
        floors[at] += 1
    return [EXACT.multiply(count, step) for count in floors]


def cent(currency: str) -> Decimal:
    """The smallest amount of this currency."""
    return Decimal(1).scaleb(-places(currency))


def plain(amount: Decimal) -> str:
    """A decimal as a person or a program writes it: no exponent, no trailing zeros beyond the point."""
    text = f"{amount:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def text(amount: Decimal, currency: str) -> str:
    """An amount of money as the API and exports write it: `43.83`, at the currency's places."""
    return f"{round_line(amount, currency):f}"
