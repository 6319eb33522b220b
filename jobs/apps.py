"""The work."""

from __future__ import annotations

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"

    def ready(self) -> None:
        from billing import timesheets  # noqa: PLC0415 - models are not loaded when this module is
        from jobs.services.timesheets import read  # noqa: PLC0415

        timesheets.register("jobs", read)
