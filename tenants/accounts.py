"""What allauth asks us about accounts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.urls import reverse


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """E-mail addresses are kept in lower case, so that one person has one account."""

    def save_user(self, request: Any, user: Any, form: Any, commit: bool = True) -> Any:
        user = super().save_user(request, user, form, commit=False)
        user.email = user.email.lower()
        if commit:
            user.save()
        return user

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """A mail speaks as Tauon, not as the address the request happened to come by."""
        ours = SimpleNamespace(name="Tauon", domain=urlsplit(settings.BASE_URL).netloc)
        super().send_mail(template_prefix, email, {**context, "current_site": ours})

    def get_signup_redirect_url(self, request: Any) -> str:
        """A newcomer has no tenant yet; one who was invited comes back to the invitation by `?next=`."""
        return reverse("tenants:tenant_new")
