"""Labels of a job: key=value pairs that its costs are asked and its budgets are counted by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from jobs.spec_faults import Section, shown_key

MOST = 10
LONGEST = 63
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,30}", re.ASCII)


def read_labels(top: Section) -> dict[str, str]:
    """The labels of a spec in the order of their keys; what is wrong with one is said at it."""
    part = top.section("labels")
    if len(part.raw) > MOST:
        top.fault("labels", "too_many", _("A job has at most %(most)s labels.") % {"most": MOST})
        return {}
    found: dict[str, str] = {}
    for key, value in part.raw.items():
        text = value.strip() if isinstance(value, str) else ""
        names = {"key": str(key)[:40]}
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            told = _(
                "%(key)s is no key: it begins with a small letter and has 1 to 31 of a-z, 0-9, - and _, "
                "such as team."
            )
            part.fault(shown_key(key), "invalid", told % names)
        elif not text or len(text) > LONGEST or not text.isprintable() or "," in text:
            told = _("%(key)s needs a value of 1 to 63 printable characters without a comma, such as vision.")
            part.fault(key, "invalid", told % names)
        else:
            found[key] = text
    return dict(sorted(found.items()))


def written(labels: Mapping[str, str]) -> str:
    """`project=churn, team=vision`: labels as a person writes them."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def split(text: str) -> list[tuple[str, str]]:
    """What a person wrote, in pairs and as it is; a part without "=" has no value. JobSpec judges them."""
    pairs = []
    for part in text.split(","):
        key, _equals, value = part.partition("=")
        if part.strip():
            pairs.append((key.strip(), value.strip()))
    return pairs


def as_filter(text: str) -> dict[str, Any] | None:
    """`team=vision` as a filter of jobs, `team` for any value of it; None for what no label can be."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not _KEY.fullmatch(key) or not value.isprintable() or len(value) > LONGEST:
        return None
    return {"spec__labels__contains": {key: value}} if equals else {"spec__labels__has_key": key}
