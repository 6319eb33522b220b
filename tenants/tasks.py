"""Celery doors of this app."""

from __future__ import annotations

from celery import shared_task

from tenants.services import housekeeping


@shared_task(name="tenants.forget_idempotency")
def forget_idempotency() -> int:
    return housekeeping.forget_idempotency()
