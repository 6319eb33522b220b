"""One replica with its process and its bill: from the first answer on it costs by the second."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from billing.services import metering
from billing.services.metering import Verdict
from jobs.models import Endpoint, Replica
from jobs.services.workers import Worker
from jobs.states import ReplicaStatus

METER = "endpoint.replica"


@dataclass(slots=True, kw_only=True)
class Running:
    """One replica of the keeper's own."""

    replica: Replica
    worker: Worker
    endpoint: Endpoint
    allocation: int | None = None
    next_beat: float = 0.0
    retired_at: float | None = None  # left the routes
    asked_to_stop: bool = False

    @property
    def is_starting(self) -> bool:
        return self.replica.status == ReplicaStatus.STARTING

    @property
    def is_ready(self) -> bool:
        return self.replica.status == ReplicaStatus.READY

    def open_bill(self) -> int:
        """A new allocation; the caller keeps its id on the replica in the same transaction."""
        endpoint = self.endpoint
        allocation = metering.open_allocation(
            endpoint.tenant,
            meter=METER,
            sku="standard",
            units=1,
            subject=endpoint.public_id,
            subject_title=endpoint.name,
            user_label=endpoint.created_by.email if endpoint.created_by else "",
            fence=self.replica.fence,
            lease_s=settings.LEASE_S,
        )
        return int(allocation.pk)

    def beat(self, now: float) -> bool:
        """Tell billing that it still runs, if that is due; False when the budget says stop."""
        if self.allocation is None or now < self.next_beat:
            return True
        self.next_beat = now + settings.BEAT_S
        self.worker.trim_logs()
        verdict = metering.beat(self.allocation, fence=self.replica.fence)
        if verdict is Verdict.FENCED:
            # it was silent for too long (the machine slept) and its bill was ended: begin a new one
            with transaction.atomic():
                self.allocation = self.open_bill()
                self.replica.allocations = [*self.replica.allocations, self.allocation]
                self.replica.save(update_fields=["allocations"])
        return verdict is not Verdict.STOP

    def close_bill(self, *, reason: str) -> None:
        if self.allocation is not None:
            metering.close_allocation(self.allocation, fence=self.replica.fence, reason=reason)
