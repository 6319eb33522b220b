"""The socket of a job: exact sequences, rights that end while it is open, silence that must not kill it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from channels.db import database_sync_to_async as in_db
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.db import connection, connections
from django.test import Client

from billing import seed
from jobs import compute, live
from jobs.models import Job, JobEvent
from jobs.models.jobs import Draft
from jobs.services import progress
from jobs.services.jobs import cancel_job
from tenants.models import ApiToken, Membership
from tests import factories
from tests.jobs.factories_jobs import FakeCompute, make_job, make_version

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def machine(db):
    with compute.use(FakeCompute(processes=2)) as fake:
        yield fake


@pytest.fixture(autouse=True)
def a_reader_of_its_own(monkeypatch) -> Iterator[None]:
    """channels' test client keeps connections open that a server would close; so we close this thread's."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        monkeypatch.setattr(live, "_readers", reader)
        yield
        reader.submit(connections.close_all).result()


@pytest.fixture
def job(as_ben) -> Job:
    seed.seed()
    return make_job(as_ben, make_version(as_ben.tenant))


def speak(job: Job, count: int, *, first: int = 1) -> None:
    """So many metrics in one batch, with one nudge, as the runner writes them."""
    drafts = [
        Draft(kind="metric", data={"step": step, "name": "train/loss", "value": 1 / step})
        for step in range(first, first + count - 1)
    ]
    JobEvent.objects.append(job, drafts)
    progress.append(job, "metric", {"step": first + count - 1, "name": "train/loss", "value": 0.1})


def session_of(user: Any) -> bytes:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return f"sessionid={client.cookies['sessionid'].value}".encode()


@asynccontextmanager
async def socket_of(job_id: str, *, after: int = 0, **headers: bytes) -> AsyncIterator[WebsocketCommunicator]:
    """A connected socket through the whole stack of the server: origin, session, route, consumer."""
    from console.asgi import application

    sent = [(b"origin", b"http://localhost"), (b"host", b"localhost")]
    sent += [(name.encode(), value) for name, value in headers.items()]
    talk = WebsocketCommunicator(application, f"/ws/jobs/{job_id}?after={after}", headers=sent)
    connected, _ = await talk.connect(timeout=10)
    assert connected
    try:
        yield talk
    finally:
        await talk.disconnect()


async def read_until(talk: WebsocketCommunicator, last_seq: int) -> list[int]:
    """Numbers of the events that arrive, until this one is there."""
    seen: list[int] = []
    while not seen or seen[-1] < last_seq:
        message = await talk.receive_json_from(timeout=10)
        if message["type"] == "events":
            seen += [event["seq"] for event in message["events"]]
            assert message["last_seq"] == seen[-1]
    return seen


async def close_code(talk: WebsocketCommunicator, timeout: float = 10) -> int:
    while True:
        message = await talk.receive_output(timeout)
        if message["type"] == "websocket.close":
            return int(message["code"])


async def test_everything_comes_once_in_order_and_a_resumed_socket_has_no_gap_and_no_double(ben, job):
    cookie = await in_db(session_of)(ben)
    await in_db(speak)(job, 1200)
    async with socket_of(job.public_id, cookie=cookie) as talk:
        first = await read_until(talk, 1201)
    await in_db(speak)(job, 300, first=2000)  # said while nobody listened
    async with socket_of(job.public_id, after=first[-1], cookie=cookie) as talk:
        await in_db(speak)(job, 50, first=3000)
        second = await read_until(talk, 1551)
    assert first + second == list(range(1, 1552))


@pytest.mark.parametrize("job_id", ["a\0b", "x" * 3000, "..", "../metrics", "é"])
async def test_an_id_that_is_none_closes_as_not_found(ben, job_id):
    async with socket_of(job_id, cookie=await in_db(session_of)(ben)) as talk:
        assert await close_code(talk) == live.NOT_FOUND


async def test_a_nudge_brings_news_at_once(ben, job, monkeypatch):
    monkeypatch.setattr(live, "POLL_S", 60.0)
    cookie = await in_db(session_of)(ben)
    async with socket_of(job.public_id, after=1, cookie=cookie) as talk:
        assert (await talk.receive_json_from(timeout=10))["type"] == "job"
        began = time.monotonic()
        await in_db(speak)(job, 3)
        assert await read_until(talk, 4) == [2, 3, 4]
        assert time.monotonic() - began < 5


async def test_a_lost_nudge_costs_a_moment_and_nothing_else(ben, job, monkeypatch):
    monkeypatch.setattr(live, "POLL_S", 0.5)
    cookie = await in_db(session_of)(ben)
    async with socket_of(job.public_id, after=1, cookie=cookie) as talk:
        await talk.receive_json_from(timeout=10)
        draft = Draft(kind="log", data={"level": "info", "text": "nobody was told"})
        await in_db(JobEvent.objects.append)(job, [draft])
        assert await read_until(talk, 2) == [2]


async def test_the_end_is_said_and_the_socket_closes(as_ben, ben, job):
    cookie = await in_db(session_of)(ben)
    async with socket_of(job.public_id, cookie=cookie) as talk:
        assert await read_until(talk, 1) == [1]
        await in_db(cancel_job)(as_ben, job)
        kinds = []
        while not kinds or kinds[-1] != "end":
            kinds.append((await talk.receive_json_from(timeout=10))["type"])
        assert kinds[-3:] == ["events", "job", "end"]
        assert await close_code(talk) == 1000


async def test_a_stranger_cannot_tell_a_job_of_others_from_one_that_is_not_there(cy, job):
    cookie = await in_db(session_of)(cy)
    for job_id in (job.public_id, "job_00000000000000000000000000"):
        async with socket_of(job_id, cookie=cookie) as talk:
            assert await close_code(talk) == 4404


async def test_nobody_is_told_to_sign_in(job):
    async with socket_of(job.public_id) as talk:
        assert await close_code(talk) == 4401


async def test_a_token_listens_until_it_is_revoked(ben, job):
    token = await in_db(factories.make_token)(ben, scopes=["jobs:read"])
    async with socket_of(job.public_id, authorization=f"Bearer {token}".encode()) as talk:
        assert await read_until(talk, 1) == [1]
        await in_db(ApiToken.objects.all().delete)()
        await in_db(speak)(job, 2)
        assert await close_code(talk) == 4401


async def test_one_person_has_so_many_sockets_and_no_more_and_others_are_not_in_the_way(
    ana, ben, job, settings
):
    settings.SOCKETS_PER_ACTOR = 2
    bens, anas = await in_db(session_of)(ben), await in_db(session_of)(ana)
    token = f"Bearer {await in_db(factories.make_token)(ben)}".encode()
    async with socket_of(job.public_id, cookie=bens) as first:
        assert await read_until(first, 1) == [1]
        async with socket_of(job.public_id, cookie=bens) as second:
            assert await read_until(second, 1) == [1]
            async with socket_of(job.public_id, cookie=bens) as third:
                assert await close_code(third) == live.TOO_MANY == 4429
            async with socket_of(job.public_id, cookie=anas) as other:
                assert await read_until(other, 1) == [1]
            async with socket_of(job.public_id, authorization=token) as program:
                assert await read_until(program, 1) == [1]
            await in_db(speak)(job, 2)
            assert await read_until(first, 3) == [2, 3], "those that are open stay open"
        async with socket_of(job.public_id, cookie=bens) as again:
            assert await read_until(again, 3) == [1, 2, 3], "a closed one makes room"
    assert not live._open, "nothing stays counted"


async def test_who_is_removed_from_the_tenant_hears_nothing_more(ben, job):
    cookie = await in_db(session_of)(ben)
    async with socket_of(job.public_id, cookie=cookie) as talk:
        assert await read_until(talk, 1) == [1]
        assert (await talk.receive_json_from(timeout=10))["type"] == "job"
        await in_db(Membership.objects.filter(user=ben).delete)()
        await in_db(speak)(job, 2)
        assert await close_code(talk) == 4404


async def test_who_signs_out_hears_nothing_more(ben, job):
    client = Client()
    await in_db(client.force_login)(ben, backend="django.contrib.auth.backends.ModelBackend")
    cookie = f"sessionid={client.cookies['sessionid'].value}".encode()
    async with socket_of(job.public_id, cookie=cookie) as talk:
        assert await read_until(talk, 1) == [1]
        await in_db(client.logout)()
        await in_db(speak)(job, 2)
        assert await close_code(talk) == 4401


async def test_what_a_client_says_is_ignored(ben, job):
    cookie = await in_db(session_of)(ben)
    async with socket_of(job.public_id, cookie=cookie) as talk:
        await talk.send_to(text_data="{not json")
        await talk.send_to(bytes_data=b"\x00")
        assert await read_until(talk, 1) == [1]


async def test_a_page_of_another_site_cannot_open_a_socket(ben, job):
    from console.asgi import application

    cookie = await in_db(session_of)(ben)
    headers = [(b"origin", b"http://evil.example"), (b"host", b"localhost"), (b"cookie", cookie)]
    talk = WebsocketCommunicator(application, f"/ws/jobs/{job.public_id}", headers=headers)
    connected, _ = await talk.connect(timeout=10)
    assert not connected


async def test_a_crowd_of_nudges_is_few_reads(ben, job, monkeypatch):
    reads = []
    read = live._read
    monkeypatch.setattr(live, "_read", lambda *args: reads.append(1) or read(*args))
    cookie = await in_db(session_of)(ben)
    async with socket_of(job.public_id, cookie=cookie) as talk:
        await read_until(talk, 1)
        for number in range(20):
            await in_db(speak)(job, 1, first=10 + number)
        await read_until(talk, 21)
        # at most four a second, whatever it took
        assert len(reads) < 12


# -- a real server -------------------------------------------------------------------------------------
@pytest.fixture
def daphne() -> Iterator[int]:
    """The real server on a free port of the loopback, over the test database; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = connection.settings_dict["NAME"]
    url = os.environ["DATABASE_URL"].rsplit("/", 1)[0] + f"/{name}"
    env = {
        **os.environ,
        "DATABASE_URL": url,
        "TAUON_TESTING": "1",
        "DJANGO_SETTINGS_MODULE": "console.settings",
    }
    command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "console.asgi:application"]
    server = subprocess.Popen(command, env=env, cwd=settings.BASE_DIR)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "daphne did not come up"
                time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.slow
async def test_a_socket_that_is_idle_for_thirteen_seconds_lives(ben, job, daphne):
    token = await in_db(factories.make_token)(ben)
    headers = {"Authorization": f"Bearer {token}", "Origin": f"http://127.0.0.1:{daphne}"}
    address = f"ws://127.0.0.1:{daphne}/ws/jobs/{job.public_id}?after=1"
    async with websockets.connect(address, additional_headers=headers, ping_interval=None) as talk:
        assert '"job"' in await asyncio.wait_for(talk.recv(), 10)
        await asyncio.sleep(13)
        await in_db(speak)(job, 2)
        assert '"seq":2' in (await asyncio.wait_for(talk.recv(), 10)).replace(" ", "")
