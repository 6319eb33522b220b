"""Shipping the write-ahead log: every answered request is billed once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from billing.models import UsageEvent
from jobs import routes
from jobs.gateway.usage import UsageLog as Writer
from jobs.models import Endpoint, UsageLog
from jobs.services import usage
from jobs.services.endpoints import publish_endpoint
from tenants.actor import SYSTEM, Actor
from tenants.models import Tenant, User
from tests import factories
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import infer_body, make_endpoint, make_model_version, until

pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint(as_ana: Actor) -> Endpoint:
    return make_endpoint(as_ana)


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer(settings.USAGE_DIR, segment_bytes=1_000_000)
    yield writer
    writer.close()


def line(
    endpoint: Endpoint, *, token: str = "tok_a", at: datetime | None = None, rows: int = 1, version: str = "1"
) -> bytes:
    moment = (at or datetime.now(UTC)).isoformat(timespec="milliseconds")
    said = {"id": "r", "at": moment, "tenant": endpoint.tenant.public_id, "endpoint": endpoint.public_id,
            "version": version, "token": token, "rows": rows, "tokens": 5, "us": 100, "compute_us": 40,
            "status": 200}  # fmt: skip
    return json.dumps(said).encode() + b"\n"


def billed(endpoint: Endpoint) -> int:
    return usage.requests_since(endpoint, timezone.now() - timedelta(days=30))


def segments() -> list[Path]:
    return sorted(settings.USAGE_DIR.glob("gw-*.jsonl"))


def test_requests_are_summed_by_caller_revision_and_minute(endpoint: Endpoint, writer: Writer) -> None:
    at = datetime.now(UTC).replace(second=10, microsecond=0)
    for _ in range(3):
        writer.append(line(endpoint, at=at, rows=2))
    writer.append(line(endpoint, at=at, token="tok_b"))
    writer.append(line(endpoint, at=at - timedelta(minutes=2), version="2"))
    assert usage.ship_endpoint_usage() == 5
    events = UsageEvent.objects.filter(subject=endpoint.public_id).order_by("-quantity")
    assert [int(event.quantity) for event in events] == [3, 1, 1]
    assert events[0].dims == {
        "token": "tok_a", "revision": "1", "rows": 6, "tokens": 15, "us": 300, "compute_us": 120,
    }  # fmt: skip
    assert sorted(event.dims["revision"] for event in events) == ["1", "1", "2"]
    assert events[0].event_time == at.replace(second=0)
    assert billed(endpoint) == 5


def test_shipping_again_counts_nothing_again(endpoint: Endpoint, writer: Writer) -> None:
    writer.append(line(endpoint))
    usage.ship_endpoint_usage()
    assert usage.ship_endpoint_usage() == 0
    writer.append(line(endpoint))
    assert usage.ship_endpoint_usage() == 1
    assert billed(endpoint) == 2


def test_a_lost_mark_is_no_lost_truth(
    endpoint: Endpoint, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shipper that dies before its transaction lands leaves nothing; the next one does it all."""
    writer.append(line(endpoint))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(UsageLog, "save", die)
        with pytest.raises(KeyboardInterrupt):
            usage.ship_endpoint_usage()
    assert billed(endpoint) == 0
    usage.ship_endpoint_usage()
    assert billed(endpoint) == 1


@pytest.mark.django_db(transaction=True)
def test_two_shippers_at_once_count_once(endpoint: Endpoint, writer: Writer) -> None:
    for _ in range(50):
        writer.append(line(endpoint))
    gate = threading.Barrier(2)
    shipped: list[int] = []

    def ship() -> None:
        gate.wait()
        try:
            shipped.append(usage.ship_endpoint_usage())
        finally:
            connection.close()

    threads = [threading.Thread(target=ship) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(shipped) == 50
    assert billed(endpoint) == 50


def test_a_file_in_use_stays_and_a_finished_one_goes(endpoint: Endpoint, writer: Writer) -> None:
    writer.append(line(endpoint))
    usage.ship_endpoint_usage()
    assert len(segments()) == 1
    writer.close()  # what the death of the process does to its lock
    usage.ship_endpoint_usage()
    assert segments() == []
    assert UsageLog.objects.get().finished_at is not None
    assert billed(endpoint) == 1


def test_half_a_line_of_a_dead_gateway_is_nobodys_answer(endpoint: Endpoint, writer: Writer) -> None:
    writer.append(line(endpoint))
    writer.append(line(endpoint)[:40])
    writer.close()
    usage.ship_endpoint_usage()
    assert billed(endpoint) == 1
    assert segments() == []


def test_what_cannot_be_read_or_billed_holds_nothing_up(endpoint: Endpoint, writer: Writer) -> None:
    writer.append(b"not json\n")
    writer.append(line(endpoint).replace(endpoint.public_id.encode(), b"ep_gone"))
    writer.append(line(endpoint, at=datetime.now(UTC) - timedelta(days=60)))
    writer.append(line(endpoint))
    assert usage.ship_endpoint_usage() == 1
    assert billed(endpoint) == 1


def test_a_full_disk_leaves_no_half_line(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    writer.append(b"one\n")
    written = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: written(file, data[:2]))
        with pytest.raises(OSError, match="disk is full"):
            writer.append(b"two\n")
    writer.append(b"three\n")
    assert segments()[0].read_bytes() == b"one\nthree\n"


def test_segments_rotate_and_the_old_one_is_free(writer: Writer, endpoint: Endpoint) -> None:
    writer._segment_bytes = 500
    for _ in range(5):
        writer.append(line(endpoint))
    assert len(segments()) > 2
    usage.ship_endpoint_usage()
    assert len(segments()) == 1
    assert billed(endpoint) == 5


def test_requests_by_minute_for_the_page(endpoint: Endpoint, writer: Writer) -> None:
    now = datetime.now(UTC)
    writer.append(line(endpoint, at=now))
    writer.append(line(endpoint, at=now - timedelta(minutes=5)))
    usage.ship_endpoint_usage()
    counts = usage.requests_by_minute(endpoint, minutes=10)
    assert len(counts) == 10
    assert sum(counts) == 2


@pytest.mark.chaos
def test_a_gateway_killed_under_load_is_billed_for_what_it_answered(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, tenant: Tenant, ana: User
) -> None:
    """From the socket to the ledger: real gateway, real worker, kill -9, then shipping twice."""
    bundle = make.write_tiny_bundle(tmp_path_factory.mktemp("tiny"))
    endpoint = publish_endpoint(SYSTEM, name="Digits", version=make_model_version(tenant, bundle=bundle))
    Endpoint.objects.update(requests_per_minute=1_000_000)
    folder = tmp_path_factory.mktemp("w")
    token = factories.make_token(ana)
    answered: list[int] = []

    def load() -> None:
        with httpx.Client(timeout=5) as client:
            path = f"/t/lab/{endpoint.slug}/v2/models/{endpoint.slug}/infer"
            headers = {"Authorization": f"Bearer {token}"}
            for _ in range(100_000):
                try:
                    answer = client.post(gateway.url + path, json=infer_body(0), headers=headers)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    answered.append(1)

    with make.worker(bundle, folder):
        snapshot = routes.build()
        snapshot["endpoints"][f"lab/{endpoint.slug}"] |= {"workers": [str(folder / "s")], "status": "live"}
        make.announce(snapshot["endpoints"], snapshot["tokens"])
        gateway = make.Gateway(tmp_path)
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) > 50, what="some load")
        usage.ship_endpoint_usage()  # in the middle of it
        until(lambda: len(answered) > 150, what="more load")
        gateway.process.kill()
        gateway.process.wait()
        for thread in threads:
            thread.join()
    usage.ship_endpoint_usage()
    usage.ship_endpoint_usage()
    make.forget_routes()
    assert 0 <= billed(endpoint) - len(answered) <= len(threads)  # at most what was on its way out
    assert segments() == []
