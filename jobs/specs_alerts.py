"""What may be asked of an alert: one validation for the form and for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext as _

from jobs.models import AlertMetric
from tenants.errors import Fault, Invalid

MOST_EMAILS = 10
LONGEST_S = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSpec:
    """A rule, checked."""

    name: str
    metric: str
    class_name: str
    above: bool
    threshold: float
    window_s: int
    min_requests: int
    emails: list[str]
    webhook_url: str

    @classmethod
    def parse(cls, data: Any) -> AlertSpec:
        """Check everything at once and name every fault, or give the spec."""
        if not isinstance(data, Mapping):
            raise Invalid.at("", "not_an_object", _("The body must be a JSON object."))
        faults: list[Fault] = []

        def add(field: str, code: str, detail: str) -> None:
            faults.append(Fault(f"/{field}", code, detail))

        known = {field.name for field in fields(cls)}
        for field in data:
            if field not in known:
                text = _("%(field)s is not known here. Known: %(known)s.")
                add(str(field), "unknown_field", text % {"field": field, "known": ", ".join(sorted(known))})
        metric = str(data.get("metric", ""))
        if metric not in AlertMetric.values:
            text = _("Choose one of: %(known)s.")
            add("metric", "unknown", text % {"known": ", ".join(AlertMetric.values)})
        name = str(data.get("name") or "").strip()
        if not 1 <= len(name) <= 80:
            add("name", "length", _("Give the alert a name of 1 to 80 characters."))
        class_name = str(data.get("class_name") or "").strip()[:200]
        if metric == AlertMetric.CLASS_SHARE and not class_name:
            add("class_name", "required", _("Say which class."))
        threshold = _number(data.get("threshold"))
        if threshold is None:
            add("threshold", "type", _("This must be a number."))
        window = _number(data.get("window_s", 300))
        if window is None or not 10 <= window <= LONGEST_S:
            add("window_s", "range", _("A window lasts between 10 seconds and a day."))
        least = _number(data.get("min_requests", 20))
        if least is None or not 0 <= least <= 1_000_000:
            add("min_requests", "range", _("This must be a number."))
        emails = data.get("emails") or []
        if (
            not isinstance(emails, list)
            or len(emails) > MOST_EMAILS
            or not all(_is_email(one) for one in emails)
        ):
            add("emails", "format", _("Give at most %(n)s e-mail addresses.") % {"n": MOST_EMAILS})
        url = str(data.get("webhook_url") or "").strip()
        if url and (
            urlsplit(url).scheme not in ("https", "http") or not urlsplit(url).hostname or len(url) > 500
        ):
            add("webhook_url", "format", _("A webhook is an address that begins with https://."))
        if not emails and not url and not any(one.pointer in ("/emails", "/webhook_url") for one in faults):
            add("emails", "required", _("Say who is told: an e-mail address, a webhook, or both."))
        above = data.get("above", True)
        if not isinstance(above, bool):
            add("above", "type", _("This must be a yes or no."))
        if faults:
            raise Invalid(faults[0].detail if len(faults) == 1 else "", faults=faults)
        assert threshold is not None and window is not None and least is not None
        return cls(
            name=name, metric=metric, class_name=class_name, above=above, threshold=threshold,
            window_s=int(window), min_requests=int(least), emails=list(emails), webhook_url=url,
        )  # fmt: skip

    def fields(self) -> dict[str, Any]:
        return asdict(self)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _is_email(value: Any) -> bool:
    try:
        validate_email(value)
    except (ValidationError, TypeError):
        return False
    return True
