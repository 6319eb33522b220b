"""Reads single values of events told from outside: a quantity, labels; what is wrong is said, never raised."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext as _

from billing import money

MOST_LABELS = 8
LARGEST_DIGITS = 18  # before the point: a hundred million of the largest still fit into the sum of a day
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,39}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,12})?", re.ASCII)
_SIGNED = re.compile(r"[+-]?[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?", re.ASCII)

Wrong = list[tuple[str, str, str]]  # field, code, words


def quantity(given: Any, wrong: Wrong) -> str:
    """A quantity as it is stored: every digit, no exponent."""
    # the common cases first: a whole number, then a plain one, as JSON wrote it or as text
    if isinstance(given, str):
        if given.isdigit() and given.isascii() and given[0] != "0" and len(given) <= LARGEST_DIGITS:
            return str(given)
        if _NUMBER.fullmatch(given):
            return money.plain(Decimal(given))
    amount = _decimal(given)
    if amount is None:
        wrong.append(("quantity", "invalid", _("A quantity is a finite number, such as 12.5.")))
    elif amount < 0:
        text = _("A quantity is zero or more. What was too much is taken back by a credit note.")
        wrong.append(("quantity", "negative", text))
    elif amount >= Decimal(10) ** LARGEST_DIGITS:
        wrong.append(("quantity", "too_large", _("A quantity is smaller than 10^18.")))
    elif amount != money.kept(amount):
        wrong.append(("quantity", "too_fine", _("A quantity has at most 12 decimal places.")))
    else:
        return money.plain(amount)
    return ""


def labels_of(given: Any, wrong: Wrong) -> str:
    """Labels as the dimensions of an event, in JSON; the same labels are the same text."""
    if not given and (given is None or given == {}):
        return "{}"
    if not isinstance(given, dict) or len(given) > MOST_LABELS:
        wrong.append(("labels", "invalid", _("Labels are an object of at most 8 texts.")))
        return ""
    for name, value in given.items():
        if not WORD.fullmatch(name):
            wrong.append((f"labels/{shown(name)}", "invalid", _("This is not the name of a label.")))
        elif type(value) is not str or not 1 <= len(value) <= 60 or not value.isprintable():
            wrong.append((f"labels/{name}", "invalid", _("A label is 1 to 60 printable characters.")))
    return json.dumps({"labels": given}, sort_keys=True)


def shown(name: str) -> str:
    """The name of an unknown field as a part of a JSON pointer."""
    plain = name if name.isprintable() else ascii(name)
    return plain[:60].replace("~", "~0").replace("/", "~1")


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
