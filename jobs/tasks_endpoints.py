"""Celery doors of endpoints: three lines each, ids only."""

from __future__ import annotations

from celery import shared_task

from jobs import routes
from jobs.services import usage


@shared_task(name="jobs.publish_routes")
def publish_routes() -> None:
    """On every change, and every five seconds in case a message or Redis was lost."""
    routes.publish()


@shared_task(name="jobs.ship_endpoint_usage")
def ship_endpoint_usage() -> None:
    usage.ship_endpoint_usage()
