"""Celery doors of jobs: three lines each, ids only."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

from jobs import compute
from jobs.services import dispatch, schedule, shutdown

# connected when the worker's parent loads this file, before it forks the pool
worker_init.connect(shutdown.worker_opens)
worker_shutting_down.connect(shutdown.worker_closes)


@worker_ready.connect
def warm_up(sender: Any, **_: Any) -> None:
    """A worker of the queue `runs` imports torch before the first run asks for it."""
    if "runs" in sender.app.amqp.queues.consume_from:
        compute.warm_up()


@worker_shutdown.connect
def cool_down(**_: Any) -> None:
    compute.close()


@shared_task(name="jobs.schedule_jobs")
def schedule_jobs() -> None:
    schedule.schedule_once()


@shared_task(name="jobs.run_attempt")
def run_attempt(attempt_id: int) -> None:
    dispatch.run_attempt(attempt_id)


@shared_task(name="jobs.sweep_attempts")
def sweep_attempts() -> None:
    dispatch.sweep_attempts()
