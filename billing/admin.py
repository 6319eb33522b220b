"""Prices in the site administration: added, never changed or deleted."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from billing import clock
from billing.models import CostRate, Meter, PriceVersion
from billing.services import prices
from tenants.http import Request


class NewPrice(forms.ModelForm):  # type: ignore[type-arg]
    """A price that starts now or later; unit and currency come from the meter and the installation."""

    valid_from = forms.SplitDateTimeField(
        label=_("valid from"),
        required=False,
        widget=AdminSplitDateTime,
        help_text=_("UTC. Empty: from now on. What was used before keeps its price."),
    )

    class Meta:
        model = PriceVersion
        fields = ["meter", "sku", "unit_price", "valid_from"]

    def clean_valid_from(self) -> Any:
        start = self.cleaned_data["valid_from"]
        if start is not None and start < clock.now():
            raise forms.ValidationError(_("A price starts now or later."))
        return start


class AddedOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that may be seen and added by whoever manages prices, and changed or deleted by nobody."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _may(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(PriceVersion)
class PriceVersionAdmin(AddedOnly):
    form = NewPrice
    list_display = ["meter", "sku", "unit_price", "currency", "unit", "valid_from", "valid_to"]
    list_filter = ["meter", "currency"]
    ordering = ["meter", "sku", "-valid_from"]

    def save_model(self, request: HttpRequest, obj: PriceVersion, form: NewPrice, change: bool) -> None:
        made = prices.set_price(
            cast(Request, request).actor,
            meter=form.cleaned_data["meter"].key,
            sku=form.cleaned_data["sku"],
            unit_price=form.cleaned_data["unit_price"],
            valid_from=form.cleaned_data["valid_from"],
        )
        obj.pk = made.pk


@admin.register(Meter)
class MeterAdmin(AddedOnly):
    """Meters are data: added here and priced beside it. What was counted in a unit keeps it, so no changes."""

    list_display = ["key", "title", "unit", "natural_unit", "natural_size"]
    fields = ["key", "title", "unit", "natural_unit", "natural_size"]
    ordering = ["key"]


@admin.register(CostRate)
class CostRateAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What a meter costs the house: read by the margin report alone, so it may be corrected."""

    list_display = ["meter", "sku", "unit_cost", "currency", "valid_from", "valid_to"]
    list_filter = ["meter", "currency"]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return _may(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _may(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may(request)


def _may(request: HttpRequest) -> bool:
    return cast(Request, request).actor.may("prices.manage")
