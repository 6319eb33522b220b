"""Celery doors of endpoints: three lines each, ids only."""

from __future__ import annotations

from celery import shared_task

from jobs import routes
from jobs.services import alerts, requests, usage


@shared_task(name="jobs.publish_routes")
def publish_routes() -> None:
    """On every change, and every five seconds in case a message or Redis was lost."""
    routes.publish()


@shared_task(name="jobs.ship_endpoint_usage")
def ship_endpoint_usage() -> None:
    usage.ship_endpoint_usage()


@shared_task(name="jobs.ship_logged_requests")
def ship_logged_requests() -> None:
    requests.ship_logged_requests()


@shared_task(name="jobs.forget_logged_requests")
def forget_logged_requests() -> None:
    requests.forget_logged_requests()


@shared_task(name="jobs.look_at_alerts")
def look_at_alerts() -> None:
    alerts.look_at_alerts()


@shared_task(name="jobs.send_webhooks")
def send_webhooks() -> None:
    """At once when an alert changes, and every ten seconds for those that did not arrive."""
    alerts.send_webhooks()
