"""Gives endpoints as many workers as their requests need, down to none, and wakes those that are called."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from jobs import routes
from jobs.models import Endpoint
from jobs.scaling import Bounds, Load, WarmHours
from jobs.services import inputs, pulses, revisions
from jobs.services.endpoints import wake_endpoint
from jobs.services.pulses import Pulses, WorkerWords
from jobs.states import EndpointStatus
from tenants.actor import SYSTEM
from tenants.errors import IllegalMove
from tenants.lifecycle import move

log = logging.getLogger(__name__)

LOOK_AT_HOURS_EVERY_S = 20.0
FORGET_EVERY_S = 600.0


@dataclass(slots=True)
class Autoscaler:
    """Part of the keeper: called once a second, and at once when a request waits."""

    pulses: Pulses = field(default_factory=Pulses)
    _loads: dict[int, Load] = field(default_factory=dict)
    _hours_at: float = float("-inf")
    _forgot_at: float = float("-inf")

    def wake(self) -> None:
        """Start the sleepers that requests wait for."""
        woken = routes.take_wakes()
        if not woken:
            return
        for endpoint in Endpoint.objects.filter(public_id__in=woken, status=EndpointStatus.ASLEEP):
            wake_endpoint(endpoint, reason="a request came")

    def look(self, ready: Mapping[int, int], words: Callable[[], Iterable[WorkerWords]]) -> None:
        """One second: read what gateways say, move counts within their bounds, judge canaries."""
        self.pulses.look()
        now, at = time.monotonic(), timezone.now()
        self.wake()
        if now - self._hours_at >= LOOK_AT_HOURS_EVERY_S:
            self._hours_at = now
            self._begin_warm_hours(at)
        self._scale(now, at)
        if self.pulses.due:
            told = list(words())
            inputs.count_inputs(told, at)
            if self.pulses.sample(told, ready):
                revisions.judge_canaries()
        if now - self._forgot_at >= FORGET_EVERY_S:
            self._forgot_at = now
            pulses.forget_old_samples()
            inputs.forget_old_counts()

    def _scale(self, now: float, at: datetime) -> None:
        # fixed ones are not even read
        rows = Endpoint.objects.filter(status=EndpointStatus.LIVE, tenant__closed_at=None)
        rows = rows.exclude(min_replicas=1, max_replicas=1, replicas_wanted=1)
        live = list(rows)
        for endpoint in live:
            load = self._loads.get(endpoint.pk)
            if load is None:
                load = self._loads[endpoint.pk] = Load(began=now, last_request=now)
            name = endpoint.public_id
            load.note(now, self.pulses.inside.get(name, 0.0), asked=name in self.pulses.asked)
            wanted = load.decide(bounds_of(endpoint), replicas=endpoint.replicas_wanted, now=now, at=at)
            if wanted != endpoint.replicas_wanted:
                _set_count(endpoint, wanted)
        here = {endpoint.pk for endpoint in live}
        self._loads = {pk: load for pk, load in self._loads.items() if pk in here}

    def _begin_warm_hours(self, at: datetime) -> None:
        asleep = Endpoint.objects.filter(status=EndpointStatus.ASLEEP, tenant__closed_at=None)
        for endpoint in asleep.exclude(warm_hours=[]):
            if bounds_of(endpoint).floor(at):
                wake_endpoint(endpoint, reason="its warm hours began")


def bounds_of(endpoint: Endpoint) -> Bounds:
    """What its owner allows, as the pure rules read it."""
    return Bounds(
        fewest=endpoint.min_replicas,
        most=endpoint.max_replicas,
        target=endpoint.target_concurrency,
        up_after_s=endpoint.scale_up_after_s,
        down_after_s=endpoint.scale_down_after_s,
        zero_after_s=endpoint.zero_after_s,
        warm=tuple(WarmHours.from_json(one) for one in endpoint.warm_hours),
    )


def _set_count(endpoint: Endpoint, wanted: int) -> None:
    log.info(
        "endpoint scaled",
        extra={"endpoint": endpoint.public_id, "was": endpoint.replicas_wanted, "workers": wanted},
    )
    if wanted:
        Endpoint.objects.filter(pk=endpoint.pk).update(replicas_wanted=wanted)
        return
    try:
        move(endpoint, to=EndpointStatus.ASLEEP, by=SYSTEM, reason="nobody called", replicas_wanted=0)
    except IllegalMove:
        return  # somebody stopped it this very moment
    # gateways must know before its workers go: from here on requests wait for a new one
    routes.publish()
