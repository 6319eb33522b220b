"""Forms of the billing pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from billing import money
from billing.models import BudgetMode, BudgetScope


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


class ScopedBudgetForm(BudgetForm):
    """A budget of everything, of one person's work, or of work with a label. Whom it names, the service checks."""

    scope = forms.ChoiceField(label=_("Budget of"), choices=BudgetScope.choices)
    value = forms.CharField(
        label=_("Person or label"),
        required=False,
        max_length=200,
        help_text=_("An e-mail address, or a label such as team=vision. Empty for everything."),
        widget=forms.TextInput(attrs={"list": "budget-of", "autocomplete": "off"}),
    )

    field_order = ("scope", "value", "amount", "mode")
