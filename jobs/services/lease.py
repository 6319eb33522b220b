"""Keeps the lease of a running attempt: renews it, settles its bill, and hears what the limits say."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models.functions import Now

from billing.services import budgets, metering, reports
from billing.services.metering import Verdict
from jobs.models import Attempt, Job
from jobs.services.predictions import owed_at_end
from jobs.states import Reason

log = logging.getLogger(__name__)


class LeaseKeeper:
    """A thread beside the work, so that a long copy or encryption never loses the lease.

    It only ever sets `lost` and `stop_for`; acting on them is the runner's part.
    """

    def __init__(self, attempt: Attempt, job: Job) -> None:
        self.attempt, self.job = attempt, job
        self.lost = False
        self.stop_for = Reason.NONE
        self.owed = owed_at_end(job)
        self._renewed = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {attempt.public_id}", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=settings.LEASE_S)

    @property
    def is_stale(self) -> bool:
        """So long without a renewal that somebody else may hold the lease by now."""
        return self.lost or time.monotonic() - self._renewed > settings.LEASE_S * 0.8

    def beat(self) -> None:
        """Renew once: database time only. No row means the attempt is over."""
        before = time.monotonic()
        live = Attempt.objects.filter(pk=self.attempt.pk, fence=self.attempt.fence, ended_at=None)
        if not live.update(lease_until=Now() + timedelta(seconds=settings.LEASE_S)):
            self.lost = True
            return
        self._renewed = before
        for allocation in self.attempt.allocations:
            verdict = metering.beat(allocation, fence=self.attempt.fence)
            if verdict is Verdict.FENCED:
                self.lost = True  # nobody pays for this place any more
            elif verdict is Verdict.STOP:
                self.stop_for = Reason.BUDGET
        self._look_at_limits()

    def _look_at_limits(self) -> None:
        job = self.job
        spent = reports.cost_of(job.tenant, job.public_id) + self.owed
        if job.max_spend is not None and spent >= job.max_spend:
            self.stop_for = Reason.SPEND_LIMIT
        elif budgets.should_stop(job.tenant, subject=job.public_id, max_spend=None):
            self.stop_for = Reason.BUDGET

    def _keep(self) -> None:
        try:
            while not self.lost and not self._over.wait(settings.BEAT_S):
                try:
                    self.beat()
                except DatabaseError:
                    # the database is away: try again, until `is_stale` says that the lease may be gone
                    log.warning("lease not renewed", extra={"attempt": self.attempt.public_id}, exc_info=True)
                    connection.close()
        finally:
            connection.close()
