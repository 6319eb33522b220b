"""JSON whose numbers keep every digit: they stay text until somebody says what they are."""

from __future__ import annotations

import json
from typing import Any

from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class Number(str):
    """A JSON number as it was written. Not a text: fields that want a text refuse it, and it equals none."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return type(other) is Number and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class ExactJson(JSONParser):
    """No float on the way: 0.1 stays 0.1, NaN and Infinity arrive as what they are and are refused in place."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        try:
            return json.loads(
                stream.read().decode("utf-8"), parse_float=Number, parse_int=Number, parse_constant=Number
            )
        except (ValueError, RecursionError):
            raise ParseError(_("The request is not valid JSON in UTF-8.")) from None
