"""Doors for Celery; the rooms are in services."""

from __future__ import annotations

from celery import shared_task

from billing.services import metering


@shared_task(name="billing.reap_allocations")
def reap_allocations() -> None:
    metering.reap_allocations()
