"""What a dataset's profile suggests a person should look at, in words."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext


def hints(profile: dict[str, Any]) -> list[dict[str, Any]]:
    """Columns that a few values keep from being numbers: column, row and value of the first, how many, a sentence."""
    found = []
    for column in profile.get("columns", []):
        if odd := column.get("odd"):
            first = odd["first"][0]
            words = {"column": column["name"], "count": odd["count"], **first}
            others = odd["count"] - 1
            text = _("“%(column)s” would be a column of numbers but for row %(row)s: “%(value)s”.") % words
            if others:
                more = ngettext(
                    "One more value is no number.", "%(n)s more values are no numbers.", others
                ) % {"n": others}
                text = f"{text} {more}"
            way_out = _("As it is, it is read as text. Mend or empty the cell and upload a new version.")
            found.append({**words, "detail": f"{text} {way_out}"})
    return found
