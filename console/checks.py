"""`manage.py check` and `check --deploy`: refuses a production that is not safe, and names the line that mends it."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core import checks


def register_all() -> None:
    checks.register(hosts_are_named)
    for check in (
        address_is_https,
        keys_come_from_outside,
        mail_leaves_the_machine,
        addresses_are_confirmed,
        debug_is_off,
    ):
        checks.register(check, checks.Tags.security, deploy=True)


def hosts_are_named(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """With `*` the websocket origin check lets everybody in, so it is never allowed."""
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    return [
        checks.Error(
            "TAUON_HOSTS is *.", hint="Name the hosts: TAUON_HOSTS=tauon.example.org", id="tauon.E001"
        )
    ]


def address_is_https(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    if settings.HTTPS:
        return []
    return [
        checks.Error(
            f"TAUON_URL is {settings.BASE_URL}: cookies and tokens would travel in clear.",
            hint="Put a TLS proxy in front and set TAUON_URL=https://...",
            id="tauon.E002",
        )
    ]


def keys_come_from_outside(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    missing = [
        name
        for name in ("TAUON_SECRET_KEY", "TAUON_MASTER_KEY")
        if not os.environ.get(name) and not os.environ.get(f"{name}_FILE")
    ]
    return [
        checks.Error(
            f"{name} is kept in var/secrets.json, beside the data it protects.",
            hint=f"Give it from outside: {name} or {name}_FILE.",
            id="tauon.E003",
        )
        for name in missing
    ]


def mail_leaves_the_machine(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    if not settings.EMAIL_BACKEND.endswith("console.EmailBackend"):
        return []
    return [
        checks.Warning(
            "Invitations are only printed on the terminal.",
            hint="Set TAUON_EMAIL_BACKEND=django.core.mail.backends.smtp.EmailBackend and TAUON_EMAIL_HOST.",
            id="tauon.W001",
        )
    ]


def addresses_are_confirmed(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """An object is shared with an e-mail address: whoever signs up with it must have shown that it is theirs."""
    if settings.ACCOUNT_EMAIL_VERIFICATION == "mandatory":
        return []
    return [
        checks.Error(
            "People may sign in with an e-mail address they never confirmed.",
            hint="Set TAUON_EMAIL_VERIFICATION=mandatory.",
            id="tauon.E005",
        )
    ]


def debug_is_off(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    if not settings.DEBUG:
        return []
    return [checks.Error("TAUON_DEBUG is on.", hint="Unset TAUON_DEBUG.", id="tauon.E004")]
