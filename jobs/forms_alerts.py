"""The form of an alert. It parses and shows; the spec decides."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from jobs.models import AlertMetric, Endpoint

WINDOWS = ((60, _("1 minute")), (300, _("5 minutes")), (900, _("15 minutes")), (3600, _("1 hour")))


class AlertForm(forms.Form):
    """A new alert."""

    name = forms.CharField(
        label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    metric = forms.ChoiceField(label=_("Watch"), choices=AlertMetric.choices)
    class_name = forms.ChoiceField(
        label=_("Class or input"),
        required=False,
        help_text=_("For the share of a class, or for one input whose drift is watched."),
    )
    above = forms.ChoiceField(
        label=_("Tell when it is"), choices=(("1", _("above")), ("0", _("below"))), initial="1"
    )
    threshold = forms.FloatField(label=_("Bound"))
    window_s = forms.TypedChoiceField(label=_("Over the last"), choices=WINDOWS, coerce=int, initial=300)
    min_requests = forms.IntegerField(
        label=_("Fewest requests"),
        initial=20,
        min_value=0,
        help_text=_("With fewer in the window nothing is said."),
    )
    emails = forms.CharField(
        label=_("E-mail to"), required=False, help_text=_("Several with commas between them.")
    )
    webhook_url = forms.CharField(
        label=_("Webhook"),
        required=False,
        max_length=500,
        widget=forms.URLInput(attrs={"placeholder": "https://"}),
        help_text=_("Signed as Standard Webhooks are."),
    )

    def __init__(self, endpoint: Endpoint, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        interface = endpoint.current.version.interface if endpoint.current else {}
        classes = interface.get("classes", [])
        inputs = [one.get("name", "") for one in interface.get("inputs", [])]
        field = self.fields["class_name"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [
            ("", "–"),
            (_("Classes"), [(str(name), str(name)) for name in classes]),
            (_("Inputs"), [(str(name), str(name)) for name in inputs]),
        ]

    def spec(self) -> dict[str, Any]:
        """What AlertSpec reads."""
        data = dict(self.cleaned_data)
        data["above"] = data["above"] == "1"
        data["emails"] = [one for one in re.split(r"[,;\s]+", data["emails"]) if one]
        return data
