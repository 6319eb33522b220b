"""Celery is transport: rows are the queue, a message only wakes somebody. The only timetable is here."""

from __future__ import annotations

import os
import warnings

from celery import Celery
from celery.platforms import SecurityWarning
from celery.schedules import crontab

from console import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
embedded.configure_urls()

# Celery warns root because of pickle; only JSON is accepted here
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("tauon")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["tenants", "billing", "jobs"])

# Long training runs have their own worker, so that they never keep a cancel or a beat waiting.
app.conf.task_default_queue = "control"
app.conf.task_routes = {"jobs.run_attempt": {"queue": "runs"}}
app.conf.beat_schedule_filename = os.environ.get("TAUON_BEAT_FILE", "")
app.conf.beat_schedule = {
    "schedule-jobs": {"task": "jobs.schedule_jobs", "schedule": 5.0},
    "sweep-attempts": {"task": "jobs.sweep_attempts", "schedule": 5.0},
    "ship-endpoint-usage": {"task": "jobs.ship_endpoint_usage", "schedule": 5.0},
    "ship-logged-requests": {"task": "jobs.ship_logged_requests", "schedule": 5.0},
    "forget-logged-requests": {"task": "jobs.forget_logged_requests", "schedule": 600.0},
    "publish-routes": {"task": "jobs.publish_routes", "schedule": 5.0},
    "look-at-alerts": {"task": "jobs.look_at_alerts", "schedule": 10.0},
    "send-webhooks": {"task": "jobs.send_webhooks", "schedule": 10.0},
    "meter-storage": {"task": "jobs.meter_storage", "schedule": 300.0},
    "delete-archived-files": {"task": "jobs.delete_archived_files", "schedule": 3600.0},
    "sweep-orphans": {"task": "jobs.sweep_orphans", "schedule": crontab(hour=3, minute=45)},
    "reap-allocations": {"task": "billing.reap_allocations", "schedule": 10.0},
    "close-periods": {"task": "billing.close_periods", "schedule": 600.0},
    "expire-credit": {"task": "billing.expire_credit", "schedule": 3600.0},
    "chase-invoices": {"task": "billing.chase_invoices", "schedule": 3600.0},
    "reconcile": {"task": "billing.reconcile", "schedule": crontab(hour=2, minute=30)},
    "forget-idempotency": {"task": "tenants.forget_idempotency", "schedule": 3600.0},
}
