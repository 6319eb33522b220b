"""Asks a shadow revision what the stable one was asked: its answer is measured, then thrown away.

It writes no usage line, so the caller pays once; the worker of a shadow is paid by the second like any other.
"""

from __future__ import annotations

import asyncio
import time

from jobs.gateway import traffic
from jobs.gateway.frames import WorkerLost
from jobs.gateway.pulse import Pulse
from jobs.gateway.snapshot import Route
from jobs.gateway.workers import Worker, Workers

MOST = 32  # requests in flight at one worker; a slow shadow misses some and must not fill the memory


class Shadows:
    """The requests to shadows that are under way."""

    def __init__(self, workers: Workers, pulse: Pulse, *, deadline_s: float) -> None:
        self._workers, self._pulse, self._deadline_s = workers, pulse, deadline_s
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, route: Route, payload: bytes, word: str | bytes) -> None:
        """Copy this request if it falls into the shadow's share; nobody waits for it."""
        shadow = route.shadow
        if shadow is None or not traffic.falls_into(route.shadow_share, route.id, word):
            return
        worker = self._workers.pick(shadow.workers)
        if worker is None or worker.in_flight >= MOST:
            return
        task = asyncio.get_running_loop().create_task(self._listen(worker, shadow, payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _listen(self, worker: Worker, shadow: Route, payload: bytes) -> None:
        began = time.monotonic()
        status, rows = 504, 0
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await worker.ask(payload)
                status, rows = answer.status, answer.rows
        except WorkerLost:
            status = 500
        except TimeoutError:
            pass
        us = int((time.monotonic() - began) * 1e6)
        self._pulse.of_shadow(shadow.id, shadow.model_version).answered(status, rows, us)
