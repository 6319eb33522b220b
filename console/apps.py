"""The console's app: loading it configures Celery and registers the checks."""

from __future__ import annotations

from django.apps import AppConfig

from console import checks
from console.celery import app as celery_app


class ConsoleConfig(AppConfig):
    name = "console"
    celery = celery_app  # the default app of this process: outbox sends through it

    def ready(self) -> None:
        checks.register_all()
