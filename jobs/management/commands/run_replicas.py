"""Run model workers for all endpoints until told to stop."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DatabaseError, InterfaceError, connection
from redis.client import PubSub
from redis.exceptions import RedisError

from jobs import routes
from jobs.gateway.pulse import KEEPER_CHANNEL
from jobs.services.keeper_lock import unlock
from jobs.services.replicas import Keeper

log = logging.getLogger(__name__)

TICK_S = 0.1
IDLE_S = 1.0
WAITING_S = 0.01  # while a worker is about to be ready


class Command(BaseCommand):
    help = "Keeps the model workers of all endpoints running. One copy works, more copies wait."

    def handle(self, *_args: Any, **_options: Any) -> None:
        self.leaving = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        settings.REPLICAS_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
        keeper = Keeper()
        bell = _Bell()
        working = told = False
        while not self.leaving:
            try:
                if not working:
                    working = keeper.take_over()
                    if not working and not told:
                        log.info("another keeper of replicas is at work; waiting for it to end")
                        told = True
                    if working:
                        log.info("keeping replicas")
                        told = False
                rang = bell.wait(_pause_s(keeper) if working else IDLE_S)
                if working and not self.leaving:
                    keeper.turn(look=rang)
            except (DatabaseError, InterfaceError):
                # the lock went with the connection; workers go on answering while we get both back
                log.warning("the database does not answer; trying again", exc_info=True)
                connection.close()
                working = False
                time.sleep(0.5)
            except Exception:  # one endpoint's trouble must not take everybody's workers down
                log.exception("a round of the keeper failed; the next one follows")
                time.sleep(IDLE_S)
        if working:
            keeper.leave()
            unlock()
        else:
            keeper.drop_everything()
        bell.close()

    def _leave(self, *_: object) -> None:
        self.leaving = True


def _pause_s(keeper: Keeper) -> float:
    if keeper.expects_one:
        return WAITING_S
    return TICK_S if keeper.replica_count else IDLE_S


class _Bell:
    """Rings when somebody changed an endpoint. Without Redis the keeper simply looks every second."""

    def __init__(self) -> None:
        self._channel: PubSub | None = None

    def wait(self, timeout_s: float) -> bool:
        """Sleep until it rings or the time is over."""
        try:
            if self._channel is None:
                self._channel = routes.redis().pubsub(ignore_subscribe_messages=True)
                self._channel.subscribe(KEEPER_CHANNEL)
            until = time.monotonic() + timeout_s
            while (left_s := until - time.monotonic()) > 0:
                message = self._channel.get_message(timeout=min(left_s, 0.25))
                if message is not None:
                    return True
            return False
        except (RedisError, OSError):
            self.close()
            time.sleep(timeout_s)
            return False

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
