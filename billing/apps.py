"""The ledger."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BillingConfig(AppConfig):
    name = "billing"

    def ready(self) -> None:
        post_migrate.connect(_seed, sender=self)


def _seed(sender: Any, using: str, **_options: Any) -> None:
    from billing.seed import seed  # noqa: PLC0415 - models are not loaded when this module is

    seed()
