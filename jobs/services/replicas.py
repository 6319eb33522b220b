"""Keeps as many model workers running as endpoints want, of the revision they want.

One keeper at a time (an advisory lock decides) compares rows with processes and closes the gap: it starts
what is missing, replaces what died (slower each time), and drains an old revision when the new one answers.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from django.conf import settings
from django.db import transaction

from billing.services import metering
from jobs import routes
from jobs.models import Endpoint, ModelVersion, Replica, Revision
from jobs.models.endpoints import WHOLE
from jobs.scaling import Have, Wanted, plan
from jobs.services import registry, revisions, workers
from jobs.services.autoscaler import Autoscaler
from jobs.services.deaths import Deaths
from jobs.services.endpoints import stop_endpoint
from jobs.services.keeper_lock import try_lock
from jobs.services.pulses import WorkerWords
from jobs.services.running import Running
from jobs.services.timesheets import KEEPER_GONE
from jobs.services.workers import Worker
from jobs.services.zygote import Zygote
from jobs.states import REPLICA_LIVE, EndpointStatus, ReplicaStatus
from tenants.actor import SYSTEM
from tenants.errors import Refused
from tenants.lifecycle import move

log = logging.getLogger(__name__)

START_LIMIT_S = 60.0
NOTICE_S = 0.25  # between leaving the routes and SIGTERM: most gateways have heard by then
DRAIN_LIMIT_S = 25.0  # a worker gives itself 20 s
LEAVE_LIMIT_S = 4.0  # supervisors kill after 5 s
LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class Keeper:
    """Reconciles in `turn()`; `run()` of the command calls it until it is told to leave."""

    fetch: Callable[[ModelVersion, Path], Path] = registry.fetch_bundle
    zygote: Zygote = field(default_factory=Zygote)
    autoscaler: Autoscaler = field(default_factory=Autoscaler)
    _running: dict[int, Running] = field(default_factory=dict)
    _deaths: Deaths = field(default_factory=Deaths)
    _news: bool = False  # routes have to be published
    _looked_at: float = float("-inf")

    # -- for the command -------------------------------------------------------------------------------------

    def take_over(self) -> bool:
        """Become the one keeper, and tidy up after the last. False while another one is at work."""
        if not try_lock():
            self.drop_everything()
            return False
        known = {running.replica.pk for running in self._running.values()}
        for replica in Replica.objects.filter(status__in=REPLICA_LIVE).exclude(pk__in=known):
            workers.stop_leftover(replica.handle)
            for allocation in replica.allocations:
                metering.close_at_last_beat(allocation, reason=KEEPER_GONE)
            move(replica, to=ReplicaStatus.STOPPED, by=SYSTEM, reason=KEEPER_GONE)
        if not known:
            workers.sweep(Path(settings.REPLICAS_DIR))
        for endpoint in Endpoint.objects.filter(status=EndpointStatus.LIVE):
            self._mark_if_dark(endpoint)
        routes.publish()
        self.zygote.ensure()
        self._looked_at = float("-inf")
        return True

    def turn(self, *, look: bool = False) -> None:
        """One round: watch processes; once a second, or when told to look, compare with what is wanted."""
        self._watch()
        self._publish()  # before anything else: somebody may be waiting for the worker that is ready now
        now = time.monotonic()
        if look:
            self.autoscaler.wake()
        if now - self._looked_at >= LOOK_EVERY_S:
            look, self._looked_at = True, now
            self.autoscaler.look(self._ready_by_revision(), self._words)
            self._beat()
        if look:
            self._reconcile()
        self._publish()

    def leave(self) -> None:
        """Stop every worker, write down that they stopped, and end their bills."""
        everybody = list(self._running.values())
        for running in everybody:
            running.worker.ask_to_stop()
        until = time.monotonic() + LEAVE_LIMIT_S
        while time.monotonic() < until and not all(running.worker.exited for running in everybody):
            time.sleep(0.02)
        for running in everybody:
            self._gone(running, reason="the keeper left")
        self.zygote.close()
        for endpoint in {running.endpoint.pk: running.endpoint for running in everybody}.values():
            self._mark_if_dark(endpoint)
        routes.publish()

    def drop_everything(self) -> None:
        """Another keeper has taken over and written our replicas off: no process of ours may stay."""
        for running in self._running.values():
            running.worker.kill()
            running.worker.clean()
        self.zygote.close()
        self._running.clear()

    @property
    def replica_count(self) -> int:
        return len(self._running)

    @property
    def expects_one(self) -> bool:
        """Whether a worker is about to be ready: every millisecond counts then."""
        return any(running.is_starting for running in self._running.values())

    def _publish(self) -> None:
        if self._news:
            routes.publish()
            self._news = False

    def _words(self) -> list[WorkerWords]:
        """What workers tell of themselves since they were last asked."""
        words = []
        for running in self._running.values():
            news = running.worker.news()
            if news.batches:
                words.append(WorkerWords(revision=running.replica.revision_id, news=news))
        return words

    def _ready_by_revision(self) -> Counter[int]:
        return Counter(running.replica.revision_id for running in self._running.values() if running.is_ready)

    # -- watching --------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        now = time.monotonic()
        for running in list(self._running.values()):
            worker, starting = running.worker, running.is_starting
            if running.retired_at is not None:
                self._see_off(running, now)
            elif worker.exited:
                self._died(running, worker.last_words())
            elif starting and worker.ready:
                try:
                    self._ready(running)
                except Refused as refusal:  # no price for replicas, say: nothing runs unbilled
                    self._died(running, refusal.detail)
            elif starting and now - worker.began > START_LIMIT_S:
                self._died(running, f"The model was not ready within {START_LIMIT_S:g} s.")

    def _ready(self, running: Running) -> None:
        replica, endpoint = running.replica, running.endpoint
        with transaction.atomic():
            allocation = running.open_bill()
            move(
                replica,
                to=ReplicaStatus.READY,
                by=SYSTEM,
                address=running.worker.address,
                allocations=[allocation],
            )
            running.allocation = allocation
            endpoint.refresh_from_db()
            if endpoint.current_id == replica.revision_id:
                self._mark_live(endpoint)
        running.next_beat = time.monotonic() + settings.BEAT_S
        self._news = True

    def _died(self, running: Running, why: str) -> None:
        """Write it off; after too many quick deaths give up: it must not burn a core for ever."""
        lived_s = time.monotonic() - running.worker.began
        replica, endpoint = running.replica, running.endpoint
        log.warning("replica died", extra={"replica": replica.public_id, "why": why})
        self._gone(running, reason="died", failed=why)
        self._count_death(endpoint, replica.revision, why, lived_s=lived_s)

    def _count_death(self, endpoint: Endpoint, revision: Revision, why: str, *, lived_s: float) -> None:
        gave_up = self._deaths.count(revision.pk, lived_s=lived_s)
        endpoint.refresh_from_db()
        if gave_up and endpoint.canary_id == revision.pk:
            note = f"Revision {revision.number} was taken back by itself. {why}"
            revisions.roll_back(SYSTEM, endpoint, note=note)
        elif gave_up and endpoint.shadow_id == revision.pk:
            note = f"The shadow, revision {revision.number}, was stopped. {why}"
            revisions.stop_shadow(SYSTEM, endpoint, note=note)
        elif gave_up and endpoint.current_id == revision.pk:
            if endpoint.status in {EndpointStatus.STARTING, EndpointStatus.LIVE}:
                move(endpoint, to=EndpointStatus.FAILED, by=SYSTEM, reason=why, error=why)
        else:
            self._mark_if_dark(endpoint)

    def _see_off(self, running: Running, now: float) -> None:
        """A retired replica: out of the routes first, then SIGTERM, in the end SIGKILL."""
        assert running.retired_at is not None
        waited_s = now - running.retired_at
        if running.worker.exited:
            self._gone(running, reason="retired")
        elif waited_s > DRAIN_LIMIT_S:
            running.worker.kill()
            self._gone(running, reason="did not drain in time")
        elif not running.asked_to_stop and waited_s >= NOTICE_S:
            running.asked_to_stop = True
            running.worker.ask_to_stop()

    def _gone(self, running: Running, *, reason: str, failed: str = "") -> None:
        """The process is over: kill what may be left of it, close its bill, keep its last words."""
        running.worker.kill()
        running.worker.clean()
        self._running.pop(running.replica.pk, None)
        with transaction.atomic():
            running.close_bill(reason=reason)
            to = ReplicaStatus.FAILED if failed else ReplicaStatus.STOPPED
            move(running.replica, to=to, by=SYSTEM, reason=reason, error=failed)
        self._news = True

    # -- reconciling -----------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        # those that want nothing are not even read: there may be thousands
        rows = Endpoint.objects.filter(tenant__closed_at=None, current__isnull=False)
        rows = rows.exclude(status__in=[EndpointStatus.STOPPED, EndpointStatus.ASLEEP])
        endpoints = {
            one.pk: one
            for one in rows.select_related(
                "tenant", "created_by", "current__version", "canary__version", "shadow__version"
            )
        }
        have = [
            Have(id=pk, endpoint=one.endpoint.pk, revision=one.replica.revision_id, status=one.replica.status)
            for pk, one in self._running.items()
            if one.retired_at is None
        ]
        todo = plan({pk: _wanted(one) for pk, one in endpoints.items()}, have)
        by_revision = {
            revision.pk: (endpoint, revision)
            for endpoint in endpoints.values()
            for revision in (endpoint.current, endpoint.canary, endpoint.shadow)
            if revision is not None
        }
        now = time.monotonic()
        for revision_pk in todo.start:
            if self._deaths.may_try(revision_pk, now):
                self._start(*by_revision[revision_pk])
        for pk in todo.retire:
            self._retire(self._running[pk])
        self._deaths.forget_others(by_revision)
        ready = self._ready_by_revision()
        for endpoint in endpoints.values():
            # after a rollback the revision that is wanted may have been there all along
            if endpoint.status == EndpointStatus.STARTING and ready[cast(int, endpoint.current_id)]:
                self._mark_live(endpoint)

    def _start(self, endpoint: Endpoint, revision: Revision) -> None:
        replica = Replica.objects.create(
            tenant=endpoint.tenant, revision=revision, fence=secrets.token_hex(16)
        )
        folder = Path(settings.REPLICAS_DIR) / replica.public_id
        try:
            folder.mkdir(parents=True, mode=0o700)
            self.fetch(revision.version, folder / "bundle")
            worker = Worker(
                folder,
                model_name=endpoint.slug,
                model_version=str(revision.number),
                starter=self.zygote,
            )
        except Exception as error:  # a missing file, a full disk: the publisher must read it on the page
            log.exception("replica cannot start", extra={"replica": replica.public_id})
            workers.stop_leftover({"folder": str(folder)})
            why = str(error) or type(error).__name__
            move(replica, to=ReplicaStatus.FAILED, by=SYSTEM, error=why)
            self._count_death(endpoint, revision, why, lived_s=0)
            return
        replica.handle = worker.handle
        replica.save(update_fields=["handle"])
        self._running[replica.pk] = Running(replica=replica, worker=worker, endpoint=endpoint)

    def _retire(self, running: Running) -> None:
        running.retired_at = time.monotonic()
        if running.is_ready:
            move(running.replica, to=ReplicaStatus.DRAINING, by=SYSTEM)
            self._news = True
        else:
            running.asked_to_stop = True
            running.worker.kill()  # it has answered nobody yet

    def _mark_live(self, endpoint: Endpoint) -> None:
        if endpoint.status in {EndpointStatus.STARTING, EndpointStatus.FAILED}:
            move(endpoint, to=EndpointStatus.LIVE, by=SYSTEM, error="")
            self._news = True

    def _mark_if_dark(self, endpoint: Endpoint) -> None:
        """A live endpoint without a ready replica is starting again."""
        ready = Replica.objects.filter(revision__endpoint=endpoint, status=ReplicaStatus.READY)
        with transaction.atomic():
            # locked: somebody may be stopping it this very moment, and a stopped one stays stopped
            locked = Endpoint.objects.select_for_update().get(pk=endpoint.pk)
            if locked.status == EndpointStatus.LIVE and not ready.exists():
                move(locked, to=EndpointStatus.STARTING, by=SYSTEM, reason="no replica answers")
                self._news = True

    def _beat(self) -> None:
        now = time.monotonic()
        for running in list(self._running.values()):
            if not running.beat(now):
                stop_endpoint(SYSTEM, running.endpoint, reason="The tenant's budget is reached.")


def _wanted(endpoint: Endpoint) -> Wanted:
    """Canary and shadow have one worker, or as many as their share of the requests asks for."""
    beside: dict[int, int] = {}
    for revision, share in (
        (endpoint.canary_id, endpoint.canary_share),
        (endpoint.shadow_id, endpoint.shadow_share),
    ):
        if revision is not None:
            beside[revision] = max(1, math.ceil(endpoint.replicas_wanted * share / WHOLE))
    return Wanted(
        revision=cast(int, endpoint.current_id),
        count=max(1, endpoint.replicas_wanted),
        beside=beside,
        may_start=endpoint.status != EndpointStatus.FAILED,
    )
