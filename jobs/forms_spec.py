"""What forms of a spec have in common: they gather, and show what the spec says against it at its field."""

from __future__ import annotations

from django import forms
from django.forms.utils import ErrorDict

from tenants.errors import Refused


class SpecForm(forms.Form):
    """A form whose content is judged elsewhere, in the words the API uses."""

    def forget_errors(self) -> None:
        """Show what is filled in without judging it yet."""
        self._errors = ErrorDict()

    def add_refusal(self, refusal: Refused) -> None:
        """Show each fault at the field it speaks of."""
        for fault in refusal.faults:
            self.add_error(self._field_of(fault.pointer), fault.detail)
        if not refusal.faults:
            self.add_error(None, refusal.detail)

    def _field_of(self, pointer: str) -> str | None:
        """The field a JSON pointer speaks of; None: the whole form."""
        raise NotImplementedError
