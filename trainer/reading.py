"""Plain JSON into dataclasses, or the pointer to the field that is missing, unknown or mistyped.

Standard library only, like the contract that is read with it.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Any, TypeVar


class BadSpec(ValueError):
    """The run spec does not make sense. `pointer` is a JSON pointer to the field at fault."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail


E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
    "int | str": (int, str),
}


def require(holds: bool, pointer: str, detail: str) -> None:
    if not holds:
        raise BadSpec(pointer, detail)


def object_at(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name, {})
    require(isinstance(value, dict), f"/{name}", "must be an object")
    return value  # type: ignore[no-any-return]


def build(kind: type[T], raw: dict[str, Any], pointer: str) -> T:
    """Make the dataclass `kind`, or name the field that is missing, unknown or mistyped."""
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for name, value in raw.items():
        require(name in known, f"{pointer}/{name}", "is not a field of a run spec")
        expected = _JSON_TYPES.get(str(known[name].type))
        if expected and (isinstance(value, bool) or not isinstance(value, expected)):
            raise BadSpec(f"{pointer}/{name}", f"must be {known[name].type}, not {value!r}")
    for name, item in known.items():
        needed = item.default is MISSING and item.default_factory is MISSING
        require(not needed or name in raw, f"{pointer}/{name}", "is required")
    return kind(**raw)


def choice(kind: type[E], value: object, pointer: str) -> E:
    try:
        return kind(str(value))
    except ValueError:
        known = ", ".join(kind)
        raise BadSpec(pointer, f"{value!r} is not one of {known}") from None
