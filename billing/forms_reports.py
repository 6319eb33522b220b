"""The form of the cost explorer."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from billing import clock
from billing.models import Meter
from billing.months import Month
from billing.services.explorer import GROUPS, Question
from tenants.models import Tenant

GROUP_LABELS = {
    "hour": _("Hour"),
    "day": _("Day"),
    "month": _("Month"),
    "tenant": _("Tenant"),
    "user": _("User"),
    "subject": _("Job or endpoint"),
    "stream": _("Service"),
    "meter": _("Meter"),
    "sku": _("SKU"),
    "label": _("Label"),
}
GROUP_TITLES = {
    "hour": _("By hour"),
    "day": _("By day"),
    "month": _("By month"),
    "tenant": _("By tenant"),
    "user": _("By user"),
    "subject": _("By job or endpoint"),
    "stream": _("By service"),
    "meter": _("By meter"),
    "sku": _("By SKU"),
    "label": _("By label"),
}
# filters that come from links in the table: kept while the form is changed
DRILLED = ("sku", "user", "subject", "where", "currency")


class MeterField(forms.ModelChoiceField):
    """Meters by their titles; their keys are for the API."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:  # PostgreSQL fails over it
            raise forms.ValidationError(self.error_messages["invalid_choice"], code="invalid_choice")
        return super().to_python(value)

    def label_from_instance(self, obj: Meter) -> str:
        return gettext(obj.title)


class ExplorerForm(forms.Form):
    """The stretch of days, how to group, and what to look at."""

    start = forms.DateField(label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    end = forms.DateField(label=_("Before"), widget=forms.DateInput(attrs={"type": "date"}))
    by = forms.ChoiceField(label=_("Group by"))
    then = forms.ChoiceField(label=_("and then by"), required=False)
    label = forms.ChoiceField(label=_("Label"), required=False)
    tenant = forms.ModelChoiceField(
        label=_("Tenant"),
        queryset=Tenant.objects.order_by("name"),
        to_field_name="public_id",
        required=False,
        empty_label=_("All tenants"),
    )
    meter = MeterField(
        label=_("Meter"), queryset=Meter.objects.order_by("key"), required=False, empty_label=_("All meters")
    )
    sku = forms.CharField(max_length=60, required=False, widget=forms.HiddenInput)
    user = forms.CharField(max_length=200, required=False, widget=forms.HiddenInput)
    subject = forms.CharField(max_length=40, required=False, widget=forms.HiddenInput)
    where = forms.CharField(max_length=120, required=False, widget=forms.HiddenInput)
    currency = forms.CharField(max_length=3, required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, platform: bool, labels: list[str], **options: Any) -> None:
        super().__init__(*args, **options)
        known = [key for key in GROUPS if (platform or key != "tenant") and (labels or key != "label")]
        choices = [(key, GROUP_LABELS[key]) for key in known]
        self.fields["by"].choices = choices  # type: ignore[attr-defined]
        self.fields["then"].choices = [("", _("nothing more")), *choices]  # type: ignore[attr-defined]
        self.fields["label"].choices = [(name, name) for name in labels]  # type: ignore[attr-defined]
        if not labels:
            del self.fields["label"]
        if not platform:
            del self.fields["tenant"]

    @classmethod
    def of(cls, given: Any, *, platform: bool, labels: list[str]) -> ExplorerForm:
        """The form of a query string; what is not said is this month, by day."""
        first, after = this_month()
        said = {"start": first.isoformat(), "end": after.isoformat(), "by": "day"}
        if labels:
            said["label"] = labels[0]
        return cls(
            {**said, **{key: value for key, value in given.items() if value}},
            platform=platform,
            labels=labels,
        )

    @property
    def question(self) -> Question:
        """What is asked of `explorer.explore`."""
        data = self.cleaned_data
        return Question(
            start=data["start"],
            end=data["end"],
            by=data["by"],
            then=data["then"],
            label=data.get("label", ""),
            meter=data["meter"].key if data["meter"] else "",
            **{name: data[name] for name in ("sku", "user", "subject", "where")},
        )


def this_month() -> tuple[date, date]:
    """From the 1st up to and with today."""
    today = clock.now().date()
    return Month.of(today).first, today + timedelta(days=1)
