"""Forms of the pages. They parse and show; services decide."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from tenants.actor import Actor
from tenants.errors import Refused
from tenants.models import Tenant
from tenants.models.tenants import ROLE_CHOICES
from tenants.roles import Role
from tenants.services.tenants import roles_given_by
from tenants.services.tokens import scopes_within_reach
from tenants.wording import SCOPE_WORDS


def add_faults(form: forms.BaseForm, refusal: Refused) -> None:
    """Show a service's refusal at the fields its pointers name, in the same words the API uses."""
    for fault in refusal.faults:
        name = fault.pointer.strip("/").split("/")[0]
        form.add_error(name if name in form.fields else None, fault.detail)
    if not refusal.faults:
        form.add_error(None, refusal.detail)


def _offer(form: forms.BaseForm, name: str, choices: list[tuple[str, Any]]) -> None:
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    field.choices = choices


class TenantForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Tenant
        fields = ["name"]
        labels = {"name": _("Name")}
        help_texts = {"name": _("People see this name. The short name in addresses never changes.")}


class InviteForm(forms.Form):
    email = forms.EmailField(
        label=_("E-mail address"), widget=forms.EmailInput(attrs={"autocomplete": "off"})
    )
    role = forms.ChoiceField(label=_("Role"))

    def __init__(self, actor: Actor, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        given = roles_given_by(actor)
        _offer(self, "role", [(str(role), label) for role, label in ROLE_CHOICES if role in given])
        self.fields["role"].initial = Role.MEMBER.value


class TokenForm(forms.Form):
    EXPIRY = [
        ("7", _("7 days")),
        ("30", _("30 days")),
        ("90", _("90 days")),
        ("365", _("1 year")),
        ("never", _("Never")),
    ]

    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        help_text=_("What will use it, such as “laptop” or “nightly training”."),
    )
    expires_in_days = forms.TypedChoiceField(
        label=_("Expires after"),
        choices=EXPIRY,
        initial="90",
        coerce=lambda value: None if value == "never" else int(value),
    )
    scopes = forms.MultipleChoiceField(label=_("Scopes"), widget=forms.CheckboxSelectMultiple)
    granted_only = forms.BooleanField(
        label=_("Only objects shared with this token"),
        help_text=_("It reaches nothing until somebody shares a dataset, job, model or endpoint with it."),
        required=False,
    )

    def __init__(self, actor: Actor, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _offer(self, "scopes", [(scope, SCOPE_WORDS[scope]) for scope in scopes_within_reach(actor)])


class AuditFilter(forms.Form):
    action = forms.ChoiceField(required=False, widget=forms.Select(attrs={"aria-label": _("Action")}))
    actor = forms.CharField(
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("Who"), "aria-label": _("Who")}),
    )

    def __init__(self, actions: list[str], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _offer(self, "action", [("", _("Every action")), *((one, one) for one in actions)])
