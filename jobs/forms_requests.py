"""Forms of the request log. They parse and show; the spec decides."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from jobs.models import Endpoint
from jobs.services.requests import STATUSES

SHARES = (0.0, 0.1, 1.0, 10.0, 100.0)


class RequestLogForm(forms.Form):
    """How much is kept, for how long, and what is hidden."""

    log_percent = forms.FloatField(
        label=_("Keep of all requests (%)"),
        min_value=0,
        max_value=100,
        help_text=_("0 turns the log off; 1 keeps about every hundredth request."),
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    log_days = forms.IntegerField(label=_("Keep them for (days)"), min_value=1, max_value=90)
    log_mask_texts = forms.BooleanField(
        label=_("Hide e-mail addresses, telephone and other long numbers"),
        required=False,
        help_text=_("In every text, before anything is written down."),
    )
    log_masks = forms.CharField(
        label=_("Hide these inputs"),
        required=False,
        max_length=10_000,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=_("One name a line, as the model calls it; *** stands in their place."),
    )

    @classmethod
    def of(cls, endpoint: Endpoint) -> RequestLogForm:
        return cls(
            initial={
                "log_percent": f"{endpoint.log_percent:g}",
                "log_days": endpoint.log_days,
                "log_mask_texts": endpoint.log_mask_texts,
                "log_masks": "\n".join(endpoint.log_masks),
            }
        )

    def change(self) -> dict[str, Any]:
        """What EndpointChange reads."""
        data = dict(self.cleaned_data)
        data["log_masks"] = data["log_masks"].splitlines()
        return data


class RequestFilter(forms.Form):
    """Which requests are shown."""

    status = forms.ChoiceField(label=_("Status"), required=False)
    label = forms.ChoiceField(label=_("Class"), required=False)

    def __init__(self, labels: list[str], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        status, label = self.fields["status"], self.fields["label"]
        assert isinstance(status, forms.ChoiceField) and isinstance(label, forms.ChoiceField)
        status.choices = [("", _("Every status")), *((one, one) for one in STATUSES)]
        label.choices = [("", _("Every class")), *((one, one) for one in labels)]
