"""JSON bodies from people we do not know: only text that the database can keep, in nesting that has an end."""

from __future__ import annotations

import re
from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from tenants.errors import Fault, Invalid

# PostgreSQL takes neither NUL nor half a surrogate pair; JSON can spell both
_UNKEPT = re.compile("[\0\ud800-\udfff]")
MOST_DEPTH = 100


class Json(JSONParser):
    """JSON whose every text can be kept; the first that cannot is named by its pointer."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            found = super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError(_("The request is not valid.")) from None
        _check(found)
        return found


def _check(body: Any) -> None:
    left = [("", body, 0)]
    while left:
        pointer, value, depth = left.pop()
        if depth > MOST_DEPTH:
            raise ParseError(_("The request is not valid."))
        if isinstance(value, str) and _UNKEPT.search(value):
            raise _unkept(pointer, value)
        if isinstance(value, dict):
            for key, inner in value.items():
                if _UNKEPT.search(key):
                    raise _unkept(pointer, key)
                left.append((f"{pointer}/{key}", inner, depth + 1))
        elif isinstance(value, list):
            left += [(f"{pointer}/{index}", inner, depth + 1) for index, inner in enumerate(value)]


def _unkept(pointer: str, text: str) -> Invalid:
    code = "null_characters_not_allowed" if "\0" in text else "text"
    fault = Fault(pointer or "/", code, _("This is a text."))
    return Invalid(fault.detail, faults=[fault])
