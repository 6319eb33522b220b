"""The form of a new key."""

from __future__ import annotations

import re

from django import forms
from django.utils.translation import gettext_lazy as _

from jobs.services.keys import MOST_PER_DAY, MOST_PER_MINUTE
from tenants.forms import TokenForm


class EndpointKeyForm(forms.Form):
    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        help_text=_("Who or what will use it, such as “shop” or “mobile app”."),
    )
    expires_in_days = forms.TypedChoiceField(
        label=_("Expires after"),
        choices=TokenForm.EXPIRY,
        initial="90",
        coerce=lambda value: None if value == "never" else int(value),
    )
    per_minute = forms.IntegerField(
        label=_("Requests a minute"),
        required=False,
        min_value=1,
        max_value=MOST_PER_MINUTE,
        help_text=_("Empty: the rate of the endpoint."),
    )
    per_day = forms.IntegerField(
        label=_("Requests a day"),
        required=False,
        min_value=1,
        max_value=MOST_PER_DAY,
        help_text=_("Counted from midnight UTC. Empty: no limit by day."),
    )
    networks = forms.CharField(
        label=_("Only from these addresses"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=_("One a line, such as 203.0.113.7 or 203.0.113.0/24. Empty: from anywhere."),
    )

    def clean_networks(self) -> list[str]:
        return [one for one in re.split(r"[\s,;]+", self.cleaned_data["networks"]) if one]
