"""Forms of endpoints. They parse and show; specs and services decide."""

from __future__ import annotations

import json
import math
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from jobs.models import Endpoint, ModelVersion
from jobs.specs_endpoints import MOST_PER_MINUTE, USUAL_PER_MINUTE
from tenants.actor import Actor


class _Settings(forms.Form):
    name = forms.CharField(
        label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    requests_per_minute = forms.IntegerField(
        label=_("Requests a minute"),
        initial=USUAL_PER_MINUTE,
        min_value=1,
        max_value=MOST_PER_MINUTE,
        help_text=_("For each token; beyond it the answer is 429 with the seconds to wait."),
    )
    is_public = forms.BooleanField(
        label=_("Open to everybody, without a token"),
        required=False,
        help_text=_("Anybody who knows the address can call it, and your tenant pays for every answer."),
    )


class EndpointForm(_Settings):
    """A new endpoint."""

    version = forms.ChoiceField(label=_("Model version"))
    slug = forms.CharField(
        label=_("Address"),
        required=False,
        max_length=40,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": _("made from the name")}
        ),
    )
    field_order = ("version", "name", "slug", "requests_per_minute", "is_public")

    def __init__(self, actor: Actor, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        offer_versions(self.fields["version"], actor)
        if actor.tenant is not None:
            text = _("Called at %(base)s… Small letters, digits and hyphens; it never changes.")
            self.fields["slug"].help_text = text % {"base": f"{settings.GATEWAY_URL}/t/{actor.tenant.slug}/"}

    def spec(self) -> dict[str, Any]:
        """What EndpointSpec reads."""
        return {**self.cleaned_data, "slug": self.cleaned_data["slug"] or None}


class EndpointSettingsForm(_Settings):
    """Settings of an endpoint that is there."""

    deadline_ms = forms.IntegerField(
        label=_("Answer within"),
        required=False,
        min_value=10,
        max_value=600_000,
        help_text=_("Milliseconds. Callers get 504 after that; what still waits is not run any more."),
    )
    most_at_once = forms.IntegerField(
        label=_("Requests at once"),
        required=False,
        min_value=0,
        max_value=100_000,
        help_text=_("More of them at one gateway get 429. 0: no limit."),
    )


class RevisionForm(forms.Form):
    version = forms.ChoiceField(label=_("Model version"))

    def __init__(self, actor: Actor, endpoint: Endpoint, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        current = endpoint.current.version_id if endpoint.current else None
        offer_versions(self.fields["version"], actor, without=current)


def offer_versions(field: forms.Field, actor: Actor, *, without: int | None = None) -> None:
    """Versions of the tenant, grouped by model, newest first; the gate's pick is named."""
    rows = ModelVersion.objects.visible_to(actor).in_use().filter(tenant=actor.tenant)
    if without is not None:
        rows = rows.exclude(pk=without)
    groups: dict[str, list[tuple[str, str]]] = {}
    for one in rows.select_related("model").order_by("model__name", "-number", "-is_chosen", "variant")[:500]:
        words = {"model": one.model.name, "number": one.number, "variant": one.variant}
        words["accuracy"] = f"{100 * one.accuracy:.1f} %"
        text = _("%(model)s v%(number)s %(variant)s · %(accuracy)s")
        if one.is_chosen:
            text = _("%(model)s v%(number)s %(variant)s · %(accuracy)s · the gate's pick")
        groups.setdefault(one.model.name, []).append((one.public_id, str(text) % words))
    assert isinstance(field, forms.ChoiceField)
    field.choices = list(groups.items())


class TryForm(forms.Form):
    """One row for the playground, made from the model's own description of its inputs."""

    def __init__(self, interface: dict[str, Any], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.inputs: list[dict[str, Any]] = interface.get("inputs", [])
        sample = interface.get("sample", {})
        for index, item in enumerate(self.inputs):
            value = sample.get(item["name"], [None])
            self.fields[f"in-{index}"] = _field_of(item, value[0] if value else None, len(self.inputs))

    @property
    def images(self) -> list[tuple[forms.BoundField, dict[str, int]]]:
        """Picture inputs with their size, for the canvas."""
        return [
            (self[f"in-{index}"], dict(zip(("channels", "height", "width"), item["shape"][1:], strict=True)))
            for index, item in enumerate(self.inputs)
            if _is_image(item)
        ]

    @property
    def plain(self) -> list[forms.BoundField]:
        return [self[f"in-{index}"] for index, item in enumerate(self.inputs) if not _is_image(item)]

    def body(self) -> dict[str, Any]:
        """The v2 infer request."""
        return {
            "inputs": [
                {
                    "name": item["name"],
                    "datatype": item["datatype"],
                    "shape": [1, *item["shape"][1:]],
                    "data": _flat(self.cleaned_data[f"in-{index}"]),
                }
                for index, item in enumerate(self.inputs)
            ]
        }

    def field_at(self, pointer: str) -> str | None:
        """The field a pointer such as /inputs/2/data/0 means."""
        parts = pointer.strip("/").split("/")
        name = f"in-{parts[1]}" if len(parts) > 1 and parts[0] == "inputs" else ""
        return name if name in self.fields else None


class NumbersField(forms.CharField):
    """A JSON list of numbers of one size, such as the pixels of a picture."""

    def __init__(self, *, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.count = count

    def clean(self, value: Any) -> list[float]:
        try:
            numbers = _flat(json.loads(super().clean(value)))
        except ValueError:
            raise forms.ValidationError(_("This is not a JSON list of numbers.")) from None
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
            raise forms.ValidationError(_("This is not a JSON list of numbers."))
        if len(numbers) != self.count or not all(math.isfinite(one) for one in numbers):
            raise forms.ValidationError(
                _("Exactly %(count)s finite numbers are expected.") % {"count": self.count}
            )
        return numbers


def _is_image(item: dict[str, Any]) -> bool:
    return item["datatype"] != "BYTES" and len(item["shape"]) == 4 and item["shape"][1] in (1, 3)


def _field_of(item: dict[str, Any], sample: Any, inputs: int) -> forms.Field:
    size = math.prod(item["shape"][1:])
    if item["datatype"] != "BYTES" and (len(item["shape"]) > 1):
        widget: forms.Widget = forms.HiddenInput() if _is_image(item) else forms.Textarea(attrs={"rows": 4})
        return NumbersField(
            label=item["name"], count=size, widget=widget, initial=json.dumps(_flat(sample if sample else []))
        )
    if item["datatype"] != "BYTES":
        return forms.FloatField(
            label=item["name"],
            required=False,
            initial=int(sample) if isinstance(sample, float) and sample.is_integer() else sample,
            widget=forms.NumberInput(attrs={"step": "any"}),
        )
    if inputs == 1:
        return forms.CharField(label=item["name"], initial=sample, widget=forms.Textarea(attrs={"rows": 6}))
    return forms.CharField(label=item["name"], required=False, initial=sample, max_length=1000)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for part in value for leaf in _flat(part)]
    return [value]
