"""Celery doors of datasets: three lines each, ids only."""

from __future__ import annotations

from celery import shared_task

from jobs.services import cleaning, storage_meter


@shared_task(name="jobs.meter_storage")
def meter_storage() -> None:
    storage_meter.meter_storage()


@shared_task(name="jobs.delete_archived_files")
def delete_archived_files() -> None:
    cleaning.delete_archived_files()


@shared_task(name="jobs.sweep_orphans")
def sweep_orphans() -> None:
    cleaning.sweep_orphans()
