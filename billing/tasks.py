"""Doors for Celery; the rooms are in services."""

from __future__ import annotations

from celery import shared_task

from billing.services import closing, dunning, holds, metering, reconcile


@shared_task(name="billing.reap_allocations")
def reap_allocations() -> None:
    metering.reap_allocations()
    holds.release_expired()


@shared_task(name="billing.close_periods")
def close_periods() -> None:
    closing.close_due()


@shared_task(name="billing.expire_credit")
def expire_credit() -> None:
    closing.expire_credit()


@shared_task(name="billing.chase_invoices")
def chase_invoices() -> None:
    dunning.chase()


@shared_task(name="billing.reconcile")
def reconcile_all() -> None:
    reconcile.check_all()
