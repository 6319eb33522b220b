"""Forms of how an endpoint is operated. They parse and show; specs and services decide."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from jobs.models import Endpoint
from jobs.specs_endpoints import OPERATION

DAYS = (
    ("", _("Never")),
    ("0,1,2,3,4", _("Monday to Friday")),
    ("0,1,2,3,4,5,6", _("Every day")),
    ("5,6", _("Saturday and Sunday")),
)


def _whole(name: str, label: Any, **options: Any) -> forms.IntegerField:
    _kind, least, most = OPERATION[name]
    return forms.IntegerField(label=label, min_value=int(least), max_value=int(most), **options)


class ScalingForm(forms.Form):
    """How many workers, and when."""

    min_replicas = _whole(
        "min_replicas", _("Fewest workers"), help_text=_("0 lets it sleep; a request wakes it.")
    )
    max_replicas = _whole("max_replicas", _("Most workers"))
    target_concurrency = _whole(
        "target_concurrency",
        _("Requests at once per worker"),
        help_text=_("Beyond it, workers are added."),
    )
    scale_up_after_s = _whole("scale_up_after_s", _("Add after (s)"))
    scale_down_after_s = _whole("scale_down_after_s", _("Remove after (s)"))
    zero_after_s = _whole(
        "zero_after_s", _("Sleep after (s)"), help_text=_("Without a request, if the fewest is 0.")
    )
    warm_days = forms.ChoiceField(label=_("Kept warm on"), choices=DAYS, required=False)
    warm_from = forms.TimeField(
        label=_("from (UTC)"), required=False, widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    )
    warm_to = forms.TimeField(
        label=_("to (UTC)"), required=False, widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    )

    @classmethod
    def of(cls, endpoint: Endpoint) -> ScalingForm:
        """With what is set now. The form shows one span of warm hours; the API takes several."""
        initial: dict[str, Any] = {
            name: getattr(endpoint, name) for name in OPERATION if name in cls.base_fields
        }
        if endpoint.warm_hours:
            first = endpoint.warm_hours[0]
            initial |= {
                "warm_days": ",".join(str(day) for day in first["days"]),
                "warm_from": first["from"],
                "warm_to": first["to"],
            }
        form = cls(initial=initial)
        days = str(initial.get("warm_days", ""))
        field = form.fields["warm_days"]
        assert isinstance(field, forms.ChoiceField)
        if days not in dict(DAYS):
            field.choices = [*DAYS, (days, days)]
        return form

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if data.get("warm_days") and not (data.get("warm_from") and data.get("warm_to")):
            self.add_error("warm_from", _("Say from when to when."))
        return data

    def change(self) -> dict[str, Any]:
        """What EndpointChange reads."""
        data = dict(self.cleaned_data)
        days, start, end = (data.pop(name, None) for name in ("warm_days", "warm_from", "warm_to"))
        data["warm_hours"] = []
        if days:
            span = {"from": f"{start:%H:%M}", "to": f"{end:%H:%M}", "replicas": max(1, data["min_replicas"])}
            data["warm_hours"] = [{"days": [int(day) for day in days.split(",")], **span}]
        return data


class GuardForm(forms.Form):
    """When a canary is taken back by itself."""

    error_percent = forms.FloatField(label=_("Errors up to (%)"), min_value=0, max_value=100)
    guard_p95_ratio = forms.FloatField(
        label=_("p95 up to (times the stable one)"), min_value=1, max_value=100
    )
    guard_min_requests = _whole("guard_min_requests", _("Judge after (requests)"))

    @classmethod
    def of(cls, endpoint: Endpoint) -> GuardForm:
        return cls(
            initial={
                "error_percent": round(endpoint.guard_error_share * 100, 4),
                "guard_p95_ratio": endpoint.guard_p95_ratio,
                "guard_min_requests": endpoint.guard_min_requests,
            }
        )

    def change(self) -> dict[str, Any]:
        """What EndpointChange reads."""
        data = dict(self.cleaned_data)
        data["guard_error_share"] = data.pop("error_percent") / 100
        return data
