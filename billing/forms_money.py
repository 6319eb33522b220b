"""Forms about payments, credit, notes and accounts."""

from __future__ import annotations

import secrets
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from billing import money
from billing.models import BillingAccount, CreditKind, NoteRest


def _key() -> str:
    return secrets.token_hex(8)


class Once(forms.Form):
    """A form that carries a key of its own, so that sending it twice acts once."""

    key = forms.CharField(max_length=40, initial=_key, widget=forms.HiddenInput)


class Amount(forms.DecimalField):
    """An amount of money; the service knows the currency's places."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=0, max_digits=16, decimal_places=4, **options)
        self.widget.attrs.update(step="any", min="0", inputmode="decimal")


class CreditForm(Once):
    """How much credit to buy."""

    amount = Amount(label=_("Amount"))


class PaymentForm(forms.Form):
    """Money that arrived."""

    amount = Amount(label=_("Amount"))
    reference = forms.CharField(
        label=_("Reference"), max_length=120, help_text=_("As on the bank statement; each is booked once.")
    )


class ReasonForm(forms.Form):
    """Why something is done."""

    reason = forms.CharField(label=_("Reason"), max_length=200)


class NoteForm(Once):
    """Why a credit note is made and where its rest goes."""

    reason = forms.CharField(label=_("Reason"), max_length=200)
    rest = forms.ChoiceField(
        label=_("What is paid already"), choices=NoteRest.choices, initial=NoteRest.CREDIT
    )


class GrantForm(Once):
    """Credit that staff give a tenant."""

    amount = Amount(label=_("Amount"))
    kind = forms.ChoiceField(
        label=_("Kind"), choices=[(kind, kind.label) for kind in (CreditKind.PAID, CreditKind.PROMO)]
    )
    expires_at = forms.DateTimeField(
        label=_("Expires (UTC)"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    note = forms.CharField(label=_("Note"), max_length=200, required=False)


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]
    """How a tenant is billed."""

    class Meta:
        model = BillingAccount
        fields = [
            "currency", "plan", "mode", "zone", "anchor_day", "grace_minutes", "terms_days", "commitment",
            "tax_region", "language", "buyer_details", "customer",
        ]  # fmt: skip
        widgets = {"buyer_details": forms.Textarea(attrs={"rows": 3})}
        labels = {"customer": _("Stripe customer")}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in ("buyer_details", "tax_region", "customer"):
            self.fields[name].required = False
        language = self.fields["language"]
        self.fields["language"] = forms.ChoiceField(label=language.label, choices=settings.LANGUAGES)
        account = self.instance
        self.initial["commitment"] = money.text(account.commitment, account.currency)

    def _post_clean(self) -> None:
        """The service checks and saves; the form only reads."""
