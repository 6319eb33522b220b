"""Nothing leaves before commit: task messages, live nudges and mail go out when the transaction has landed.

A lost message costs seconds, never work: rows are the queue and a sweeper finds what nobody was told of.
In tests (`OUTBOX_MEMORY`) messages are kept in lists and `drain()` runs them.
"""

from __future__ import annotations

import logging
from typing import Any

from asgiref.sync import async_to_sync
from celery import current_app
from channels.layers import get_channel_layer
from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction

log = logging.getLogger(__name__)

queued: list[tuple[str, tuple[Any, ...]]] = []  # tests only
nudged: list[str] = []  # tests only


def enqueue(task: str, *ids: int | str) -> None:
    """Wake a Celery task by name after commit; ids only, never data."""
    transaction.on_commit(lambda: _send(task, ids), robust=True)


def nudge(stream: str) -> None:
    """Tell live pages that `stream` (such as `job.job_01...`) has news; they read the rows themselves."""
    transaction.on_commit(lambda: _nudge(stream), robust=True)


def mail(to: str, subject: str, body: str) -> None:
    """Send a plain mail after commit."""
    transaction.on_commit(lambda: _mail(to, subject, body), robust=True)


def drain(limit: int = 1000) -> int:
    """Tests: run every queued task in order, including those they queue; returns how many ran."""
    ran = 0
    while queued and ran < limit:
        task, ids = queued.pop(0)
        current_app.tasks[task](*ids)
        ran += 1
    return ran


def _send(task: str, ids: tuple[int | str, ...]) -> None:
    if settings.OUTBOX_MEMORY:
        queued.append((task, ids))
        return
    try:
        current_app.send_task(task, args=list(ids))
    except Exception:
        # the broker is away: the sweeper will find the row
        log.warning("message lost", extra={"task": task, "ids": ids}, exc_info=True)


def _nudge(stream: str) -> None:
    if settings.OUTBOX_MEMORY:
        nudged.append(stream)
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        async_to_sync(layer.group_send)(stream, {"type": "nudge", "stream": stream})
    except Exception:
        log.warning("nudge lost", extra={"stream": stream})


def _mail(to: str, subject: str, body: str) -> None:
    try:
        send_mail(subject, body, None, [to])
    except Exception:
        log.warning("mail not sent", extra={"subject": subject}, exc_info=True)
