"""`check --deploy` refuses what is not safe, and passes what is."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.core.checks import run_checks


def found(**options) -> set[str]:
    return {message.id for message in run_checks(include_deployment_checks=True)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ALLOWED_HOSTS": ["*"]}, "tauon.E001"),
        ({"HTTPS": False}, "tauon.E002"),
        ({"DEBUG": True}, "tauon.E004"),
        ({"ACCOUNT_EMAIL_VERIFICATION": "optional"}, "tauon.E005"),
        ({"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}, "tauon.W001"),
    ],
)
def test_an_unsafe_setting_is_named(monkeypatch, change, expected):
    for name, value in change.items():
        monkeypatch.setattr(settings, name, value)
    assert expected in found()


def test_keys_beside_the_data_are_refused(monkeypatch):
    for name in ("TAUON_MASTER_KEY", "TAUON_MASTER_KEY_FILE", "TAUON_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert "tauon.E003" in found()
    monkeypatch.setenv("TAUON_MASTER_KEY", "x")
    monkeypatch.setenv("TAUON_SECRET_KEY", "x")
    assert "tauon.E003" not in found()
