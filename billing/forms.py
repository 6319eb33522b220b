"""Forms of the billing pages."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from billing import clock, money
from billing.models import BudgetMode, Meter
from billing.months import Month
from billing.services import costs
from tenants.models import Tenant

GROUP_LABELS = {
    "day": _("Day"),
    "tenant": _("Tenant"),
    "subject": _("Job or endpoint"),
    "meter": _("Meter"),
    "user": _("User"),
}
GROUP_TITLES = {
    "day": _("By day"),
    "tenant": _("By tenant"),
    "subject": _("By job or endpoint"),
    "meter": _("By meter"),
    "user": _("By user"),
}


class BudgetForm(forms.Form):
    """Amount and what happens when it is reached."""

    amount = forms.DecimalField(
        label=_("Monthly budget"),
        min_value=0,
        max_digits=16,
        decimal_places=money.places(settings.CURRENCY),
        help_text=_("Months are UTC. E-mails go out at 50, 80 and 100 %."),
    )
    mode = forms.ChoiceField(label=_("When it is reached"), choices=BudgetMode.choices)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["amount"].widget.attrs.update(step="any", min="0", inputmode="decimal")


class MeterField(forms.ModelChoiceField):
    """Meters by their titles; their keys are for the API."""

    def label_from_instance(self, obj: Meter) -> str:
        return gettext(obj.title)


class ReportForm(forms.Form):
    """The stretch of days, how to group, and what to look at."""

    start = forms.DateField(label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    end = forms.DateField(label=_("Before"), widget=forms.DateInput(attrs={"type": "date"}))
    by = forms.ChoiceField(label=_("Group by"), choices=[(key, GROUP_LABELS[key]) for key in costs.GROUPS])
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

    @classmethod
    def of(cls, given: Any) -> ReportForm:
        """The form of a query string; what is not said is this month, by day."""
        first, after = this_month()
        said = {"start": first.isoformat(), "end": after.isoformat(), "by": "day"}
        return cls({**said, **{key: value for key, value in given.items() if value}})

    @property
    def chosen(self) -> dict[str, Any]:
        """The arguments of `costs.report`."""
        data = self.cleaned_data
        return {
            "start": data["start"],
            "end": data["end"],
            "group": data["by"],
            "tenant": data["tenant"].public_id if data["tenant"] else "",
            "meter": data["meter"].key if data["meter"] else "",
        }


def this_month() -> tuple[date, date]:
    """From the 1st up to and with today."""
    today = clock.now().date()
    return Month.of(today).first, today + timedelta(days=1)
