"""Reading an untrusted JSON object part by part, and collecting what is wrong with it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from django.utils.translation import gettext as _

from tenants.errors import Fault, Invalid

E = TypeVar("E", bound=StrEnum)
MAX_WHOLE = 2**53  # JSON's largest safe whole number


class Faults:
    """All that is wrong, so that a person mends everything at once."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, pointer: str, code: str, detail: str) -> None:
        self.found.append(Fault(pointer, code, detail))

    def raise_if_any(self) -> None:
        if not self.found:
            return
        count = len(self.found)
        detail = self.found[0].detail if count == 1 else _("%(n)s fields are not valid.") % {"n": count}
        raise Invalid(detail, faults=self.found)


class Section:
    """One object of the spec. Every key is taken once; what nobody took is refused."""

    def __init__(self, raw: Mapping[str, Any], pointer: str, faults: Faults) -> None:
        self.raw, self.pointer, self.faults = raw, pointer, faults
        self.known: list[str] = []

    def fault(self, name: str, code: str, detail: str) -> None:
        self.faults.add(f"{self.pointer}/{name}", code, detail)

    def take(self, name: str, usual: Any = None) -> Any:
        self.known.append(name)
        return self.raw.get(name, usual)

    def section(self, name: str) -> Section:
        raw = self.take(name)
        if raw is not None and not isinstance(raw, Mapping):
            self.fault(name, "type", _("This is an object."))
            raw = None
        return Section(raw or {}, f"{self.pointer}/{name}", self.faults)

    def refuse_unknown(self) -> None:
        """A typing error must not silently mean the default."""
        for name in self.raw:
            if name not in self.known:
                known = ", ".join(self.known)
                text = _("This field is not known. Known fields: %(known)s.") % {"known": known}
                self.fault(shown_key(name), "unknown_field", text)

    def text(self, name: str, *, most: int, required: bool = True, tidy: bool = True) -> str:
        raw = self.take(name)
        if raw is None or raw == "":
            if required:
                self.fault(name, "required", _("This is required."))
            return ""
        if not isinstance(raw, str) or "\x00" in raw:
            self.fault(name, "type", _("This is a text."))
            return ""
        value = " ".join(raw.split()) if tidy else raw
        if not value and required:
            self.fault(name, "required", _("This is required."))
        if len(value) > most:
            self.fault(name, "too_long", _("At most %(most)s characters.") % {"most": most})
        return value[:most]

    def whole(self, name: str, usual: int, *, least: int, most: int = MAX_WHOLE) -> int:
        raw = self.take(name)
        if raw is None:
            return usual
        if isinstance(raw, bool) or not isinstance(raw, int):
            self.fault(name, "type", _("This is a whole number."))
            return usual
        if not least <= raw <= most:
            text = _("At least %(least)s.") if raw < least else _("At most %(most)s.")
            self.fault(name, "range", text % {"least": least, "most": most})
            return usual
        return raw

    def number(self, name: str, usual: float) -> float:
        raw = self.take(name)
        if raw is None:
            return usual
        if not isinstance(raw, bool) and isinstance(raw, int | float):
            with contextlib.suppress(OverflowError):  # a whole number may be larger than any float
                if math.isfinite(raw):
                    return float(raw)
        self.fault(name, "type", _("This is a number."))
        return usual

    def one_of(self, name: str, known: Sequence[str], usual: str) -> str:
        raw = self.take(name)
        if raw is None:
            return usual
        if raw not in known:
            text = _("%(value)s is not one of %(known)s.")
            self.fault(name, "unknown", text % {"value": _shown(raw), "known": ", ".join(known)})
            return usual
        return str(raw)

    def choice(self, name: str, kind: type[E], usual: E | None = None) -> E | None:
        """A value of an enum; without a usual one it is required."""
        raw = self.take(name)
        if raw is None and usual is not None:
            return usual
        if raw is None or raw == "":
            text = _("This is required: one of %(known)s.") % {"known": ", ".join(kind)}
            self.fault(name, "required", text)
            return usual
        try:
            return kind(raw)
        except ValueError:
            text = _("%(value)s is not one of %(known)s.")
            self.fault(name, "unknown", text % {"value": _shown(raw), "known": ", ".join(kind)})
            return usual


def _shown(value: Any) -> str:
    return repr(value)[:60]


def shown_key(name: object) -> str:
    """A key of somebody else's object as a part of a JSON pointer."""
    return str(name).replace("~", "~0").replace("/", "~1")[:80]
