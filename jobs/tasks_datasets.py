"""Celery doors of datasets: three lines each, ids only."""

from __future__ import annotations

from celery import shared_task

from jobs.services import storage_meter


@shared_task(name="jobs.meter_storage")
def meter_storage() -> None:
    storage_meter.meter_storage()
