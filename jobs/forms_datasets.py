"""Forms of datasets and models, and the one that shares. They parse and show; services decide."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from jobs.services.datasets import MAX_DESCRIPTION, MAX_NAME
from tenants.actor import Actor
from tenants.models import ApiToken
from tenants.roles import GRANTABLE
from tenants.wording import GRANT_WORDS

ACCEPT = ".csv,.tsv,.txt,.jsonl,.ndjson,.zip"


def _file_field() -> forms.FileField:
    # an empty file is refused by the service, in the words the API uses
    field = forms.FileField(label=_("File"), allow_empty_file=True, max_length=None)
    field.widget.attrs["accept"] = ACCEPT
    return field


class DatasetForm(forms.Form):
    name = forms.CharField(
        label=_("Name"), max_length=MAX_NAME, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    description = forms.CharField(
        label=_("Description"),
        required=False,
        max_length=MAX_DESCRIPTION,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("Where it comes from, and what the label means."),
    )
    file = _file_field()


class VersionForm(forms.Form):
    file = _file_field()


class ListFilter(forms.Form):
    """Search and shelf of the lists of datasets and models; both live in the address."""

    q = forms.CharField(
        label=_("Search"),
        required=False,
        max_length=80,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("Search")}),
    )
    show = forms.ChoiceField(
        label=_("Show"), required=False, choices=[("", _("In use")), ("archived", _("Archived"))]
    )


class ShareForm(forms.Form):
    """One person by address, or one token of the tenant."""

    email = forms.EmailField(
        label=_("Person"),
        required=False,
        widget=forms.EmailInput(attrs={"autocomplete": "off", "placeholder": "name@example.org"}),
        help_text=_("Of this tenant or another; they need to have signed up and confirmed the address."),
    )
    token = forms.ChoiceField(label=_("Or an API token"), required=False)
    permission = forms.ChoiceField(label=_("What they may do"))

    def __init__(self, actor: Actor, target: Any, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        permissions = [(one, words) for one, words in GRANT_WORDS.items() if one in GRANTABLE[target.NOUN]]
        self._offer("permission", permissions)
        if len(permissions) == 1:
            self.fields["permission"].widget = forms.HiddenInput()
            self.fields["permission"].initial = permissions[0][0]
        tokens = ApiToken.objects.managed_by(actor).usable().order_by("name")
        self._offer("token", [("", "–"), *((token.public_id, token.name) for token in tokens)])

    def _offer(self, name: str, choices: list[tuple[str, Any]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices
