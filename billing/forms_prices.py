"""Forms of prices and tax rates, for whoever manages them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.core.validators import RegexValidator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from billing import money
from billing.forms_reports import MeterField
from billing.models import Meter, PriceModel, TaxRate
from billing.services import told

TIERS = 5  # rows the form offers
TIERED = {PriceModel.GRADUATED, PriceModel.VOLUME}


def _decimal(label: Any, **options: Any) -> forms.DecimalField:
    field = forms.DecimalField(label=label, min_value=0, max_digits=20, decimal_places=8, **options)
    field.widget.attrs.update(step="any", min="0", inputmode="decimal")
    return field


class Starts(forms.DateTimeField):
    """A moment in UTC; empty for now."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            label=gettext_lazy("Valid from (UTC)"),
            required=False,
            help_text=gettext_lazy("Empty: from now on."),
            widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
            **options,
        )


class PriceForm(forms.Form):
    """A price per natural unit, in any of the four ways. What it means is decided by `services.prices`."""

    meter = MeterField(label=gettext_lazy("Meter"), queryset=Meter.objects.order_by("key"))
    sku = forms.CharField(
        label=gettext_lazy("SKU"), max_length=40, initial="standard",
        validators=[RegexValidator(rf"^(?:{told.WORD.pattern})\Z", gettext_lazy("This is not the name of a SKU."))],
    )  # fmt: skip
    plan = forms.CharField(
        label=gettext_lazy("Plan"), max_length=40, initial="standard",
        widget=forms.TextInput(attrs={"list": "known-plans", "autocomplete": "off"}),
    )  # fmt: skip
    currency = forms.CharField(label=gettext_lazy("Currency"), min_length=3, max_length=3)
    model = forms.ChoiceField(label=gettext_lazy("How it is priced"), choices=PriceModel.choices)
    unit_price = _decimal(
        gettext_lazy("Price per natural unit"),
        required=False,
        help_text=gettext_lazy("Of a package: for each. With tiers it is theirs."),
    )
    included = _decimal(
        gettext_lazy("Included a month"),
        required=False,
        help_text=gettext_lazy("Natural units that cost nothing."),
    )
    minimum = _decimal(gettext_lazy("Least amount a month"), required=False)
    maximum = _decimal(gettext_lazy("Greatest amount a month"), required=False)
    valid_from = Starts()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["currency"].initial = settings.CURRENCY
        for number in range(1, TIERS + 1):
            self.fields[f"tier_{number}_up_to"] = _decimal(
                _("Up to, in tier %(n)s") % {"n": number}, required=False
            )
            self.fields[f"tier_{number}_price"] = _decimal(
                _("Price of tier %(n)s") % {"n": number}, required=False
            )
            self.fields[f"tier_{number}_flat"] = _decimal(
                _("Once for tier %(n)s") % {"n": number}, required=False
            )

    @property
    def tier_rows(self) -> Iterator[dict[str, Any]]:
        """The fields of each tier, for the page's table."""
        for number in range(1, TIERS + 1):
            yield {
                "number": number,
                "fields": [self[f"tier_{number}_{name}"] for name in ("up_to", "price", "flat")],
            }

    def clean_currency(self) -> str:
        code: str = self.cleaned_data["currency"].upper()
        if not (code.isascii() and code.isalpha()):
            raise forms.ValidationError(_("A currency is three letters, such as USD."))
        return code

    def clean(self) -> dict[str, Any]:
        said = self.cleaned_data
        if said.get("model") in TIERED:
            said["tiers"] = self._tiers()
            first = said["tiers"][0]["unit_price"] if said["tiers"] else "0"
            said["unit_price"] = Decimal(first)
        elif "model" in said:
            said["tiers"] = []
            if said.get("unit_price") is None and "unit_price" not in self.errors:
                self.add_error("unit_price", _("Say what a natural unit costs."))
        return said

    def _tiers(self) -> list[dict[str, str | None]]:
        """The rows that are filled in, as the service takes them."""
        found: list[dict[str, str | None]] = []
        end: Decimal | None = Decimal(0)
        for number in range(1, TIERS + 1):
            up_to, price, flat = (
                self.cleaned_data.get(f"tier_{number}_{name}") for name in ("up_to", "price", "flat")
            )
            if up_to is None and price is None and flat is None:
                continue
            if price is None:
                self.add_error(f"tier_{number}_price", _("Tier %(n)s needs a price.") % {"n": number})
                continue
            if end is None or (up_to is not None and up_to <= end):
                told = _("Tier %(n)s ends after the one before; only the last has no end.")
                self.add_error(f"tier_{number}_up_to", told % {"n": number})
            end = up_to
            found.append(
                {
                    "up_to": None if up_to is None else money.plain(up_to),
                    "unit_price": money.plain(price),
                    "flat": money.plain(flat or money.ZERO),
                }
            )
        if not found or end is not None:
            self.add_error("tier_1_up_to", _("The last tier has no end, so that every quantity has a price."))
        return found

    @property
    def tariff(self) -> dict[str, Any]:
        """What the service asks of a price, quantities in base units. Call it on a valid form."""
        said = self.cleaned_data
        size = said["meter"].natural_size
        return {
            "unit_price": said["unit_price"],
            "currency": said["currency"],
            "model": said["model"],
            "tiers": said["tiers"],
            "included": money.EXACT.multiply(said["included"] or money.ZERO, size),
            "minimum": said["minimum"],
            "maximum": said["maximum"],
        }


class TaxForm(forms.Form):
    """A dated rate of a region."""

    region = forms.CharField(
        label=gettext_lazy("Region"), max_length=40,
        help_text=gettext_lazy("As accounts have it: a country such as DE, or US-NY."),
        widget=forms.TextInput(attrs={"list": "known-regions", "autocomplete": "off"}),
    )  # fmt: skip
    category = forms.CharField(
        label=gettext_lazy("Category of meters"), max_length=40, initial="standard",
        widget=forms.TextInput(attrs={"list": "known-categories", "autocomplete": "off"}),
    )  # fmt: skip
    title = forms.CharField(
        label=gettext_lazy("Title on invoices"), max_length=60, help_text=gettext_lazy("Such as VAT.")
    )
    percent = forms.DecimalField(
        label=gettext_lazy("Per cent"), min_value=0, max_value=100, max_digits=7, decimal_places=4
    )
    valid_from = Starts()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["percent"].widget.attrs.update(step="any", inputmode="decimal")

    @staticmethod
    def known() -> dict[str, list[str]]:
        """Regions and categories that are in use, to choose from."""
        return {
            "regions": sorted(set(TaxRate.objects.values_list("region", flat=True))),
            "categories": sorted(set(Meter.objects.values_list("tax_category", flat=True))),
        }
