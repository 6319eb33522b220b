"""Websocket consumers: nudged, then they read. A nudge carries no data: losing one costs only a moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.urls import path, re_path
from django.utils import translation

from jobs.services import progress
from jobs.services.progress import News
from tenants.actor import NOBODY, Actor, ActorKind
from tenants.http import actor_from_token, actor_from_user, bearer
from tenants.models import User

log = logging.getLogger(__name__)

POLL_S = 5.0  # a backstop for nudges that were lost
PAUSE_S = 0.25  # at most four reads a second, however many nudges come
SIGNED_OUT = 4401
NOT_FOUND = 4404
TOO_MANY = 4429
TRY_AGAIN = 1011
_ID = re.compile(r"job_[0-9a-z]{1,36}")  # it becomes the name of a group

# reads of many sockets must not queue behind one thread, nor behind page requests
_readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="live")
# how many sockets each actor has open in this process; touched by its event loop only
_open: Counter[str] = Counter()


class JobConsumer(AsyncJsonWebsocketConsumer):
    """The stream of one job, from any number on: `/ws/jobs/<id>?after=<seq>`."""

    async def connect(self) -> None:
        self.job_id: str = self.scope["url_route"]["kwargs"]["job_id"]
        self.last_seq = _after(self.scope)
        self.shown: dict[str, Any] | None = None
        self.news_there = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None
        self.stream = self.counted_as = ""
        # a close code reaches a browser only on a socket that was accepted
        await self.accept()
        if not _ID.fullmatch(self.job_id):
            await self.close(code=NOT_FOUND)
            return
        self.stream = f"job.{self.job_id}"
        # join first, read second: what happens in between is nudged
        await self.channel_layer.group_add(self.stream, self.channel_name)
        self.pump = asyncio.create_task(self.run())

    async def disconnect(self, code: int) -> None:
        if self.pump is not None:
            self.pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.pump
        if self.stream:
            await self.channel_layer.group_discard(self.stream, self.channel_name)
        if self.counted_as:
            _open[self.counted_as] -= 1
            if _open[self.counted_as] <= 0:
                del _open[self.counted_as]

    async def receive_json(self, content: Any, **_: Any) -> None:
        """Clients have nothing to say here."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **_: Any) -> None:
        """Whatever a client sends is ignored, broken JSON included."""

    async def nudge(self, message: dict[str, Any]) -> None:
        self.news_there.set()

    async def run(self) -> None:
        """Read, send, wait for a nudge; until the job has ended or the reader may not see it any more."""
        try:
            while await self.send_news():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.news_there.wait(), POLL_S)
                await asyncio.sleep(PAUSE_S)
                self.news_there.clear()
        except Exception:
            # a socket that is open but deaf is worse than a closed one: the client comes back by itself
            log.exception("live page lost", extra={"job": self.job_id})
            await self.close(code=TRY_AGAIN)

    async def send_news(self) -> bool:
        """Everything there is; False when there is nothing more to come."""
        while True:
            actor, found = await self.read()
            if found is None:
                await self.close(code=SIGNED_OUT if actor.kind is ActorKind.NOBODY else NOT_FOUND)
                return False
            if not self.counted_as and not self.may_open(actor):
                await self.close(code=TOO_MANY)
                return False
            if found.events:
                self.last_seq = found.last_seq
                await self.send_json({"type": "events", "events": found.events, "last_seq": found.last_seq})
            if found.job != self.shown:
                self.shown = found.job
                await self.send_json({"type": "job", "job": found.job})
            if found.ended:
                await self.send_json({"type": "end"})
                await self.close(code=1000)
                return False
            if not found.more:
                return True

    def may_open(self, actor: Actor) -> bool:
        """Count this socket, unless its actor has as many open as one may: each costs reads and memory."""
        key = f"token {actor.token.pk}" if actor.token is not None else f"user {actor.the_user.pk}"
        if _open[key] >= settings.SOCKETS_PER_ACTOR:
            return False
        _open[key] += 1
        self.counted_as = key
        return True

    async def read(self) -> tuple[Actor, News | None]:
        read = database_sync_to_async(_read, thread_sensitive=False, executor=_readers)
        return await read(self.scope, self.job_id, self.last_seq)


def _read(scope: dict[str, Any], job_id: str, after: int) -> tuple[Actor, News | None]:
    """Who this is and what they may see is asked again at every read: rights end while sockets are open."""
    actor = actor_of(scope)
    if actor.kind is ActorKind.NOBODY:
        return actor, None
    with translation.override(_language(scope)):
        return actor, progress.news(actor, job_id, after=after)


def actor_of(scope: dict[str, Any]) -> Actor:
    """The actor of a socket: a bearer token wins over the session's cookie."""
    headers = {name.lower(): value for name, value in scope.get("headers", [])}
    if token := bearer(headers.get(b"authorization", b"").decode("latin-1")):
        return actor_from_token(token) or NOBODY
    user = scope.get("user") or AnonymousUser()
    session = scope.get("session")
    if not user.is_authenticated or (session is not None and not _still_signed_in(session)):
        return NOBODY
    return actor_from_user(User.objects.filter(pk=user.pk or 0).first())


def _still_signed_in(session: Any) -> bool:
    return bool(session.session_key and session.exists(session.session_key))


def _language(scope: dict[str, Any]) -> str:
    """That of the page around the socket: the reader's choice, else what the browser asks for."""
    headers = {name.lower(): value for name, value in scope.get("headers", [])}
    asked = headers.get(b"accept-language", b"").decode("latin-1")
    page: Any = SimpleNamespace(COOKIES=scope.get("cookies", {}), META={"HTTP_ACCEPT_LANGUAGE": asked})
    return translation.get_language_from_request(page)


def _after(scope: dict[str, Any]) -> int:
    """`?after=` of the address; nonsense means from the beginning."""
    given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("after", ["0"])[0]
    return int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0


class NowhereConsumer(AsyncWebsocketConsumer):
    """An address that is none: said in the same words as an object that is none."""

    async def connect(self) -> None:
        await self.accept()
        await self.close(code=NOT_FOUND)


websocket_urlpatterns = [
    path("ws/jobs/<str:job_id>", JobConsumer.as_asgi()),
    re_path("", NowhereConsumer.as_asgi()),
]
