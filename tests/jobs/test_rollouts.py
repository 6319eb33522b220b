"""Canaries, shadows and sleep with a real keeper, real workers and a real gateway."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings

from billing.models import UsageEvent
from jobs import routes
from jobs.models import Endpoint, ModelVersion, Replica, Revision, Sample
from jobs.services import revisions
from jobs.services.keeper_lock import unlock
from jobs.services.replicas import Keeper
from jobs.services.usage import ship_endpoint_usage
from jobs.services.zygote import Zygote
from tenants.actor import Actor
from tenants.models import Tenant, User
from tests import factories
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import Caller, labels_of, make_endpoint, make_model_version, until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "one": make.write_tiny_bundle(folder / "one"),
        "two": make.write_tiny_bundle(folder / "two", lead=1),
        "fragile": make.write_tiny_bundle(folder / "fragile", fragile=True),
    }


@pytest.fixture
def version(tenant: Tenant, bundles: dict[str, Path]) -> ModelVersion:
    return make_model_version(tenant, bundle=bundles["one"])


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[subprocess.Popen]:
    with make.keeper(tmp_path) as process:
        yield process
    make.forget_routes()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[make.Gateway]:
    with make.gateway(tmp_path) as process:
        yield process


def ready(revision: object) -> bool:
    return Replica.objects.filter(revision=revision, status="ready").exists()


def test_a_canary_answers_its_share_is_promoted_and_taken_back_without_a_failed_request(
    kept: subprocess.Popen, gateway: make.Gateway, as_ana: Actor, ana: User, tenant: Tenant,
    version: ModelVersion, bundles: dict[str, Path],
) -> None:  # fmt: skip
    endpoint = make_endpoint(as_ana, version, requests_per_minute=100_000)
    call = Caller(gateway.url, factories.make_token(ana), endpoint)
    routes.publish()
    until(lambda: call().status_code == 200, 30, "the first answer")
    other = make_model_version(tenant, number=2, bundle=bundles["two"])
    canary = revisions.start_canary(as_ana, endpoint, other, share=5_000).canary
    until(lambda: ready(canary), 30, "the canary")
    seen: Counter[str] = Counter()

    def ask(count: int, **headers: str) -> Counter[str]:
        said = Counter(answer_of(call(0, **headers)) for _ in range(count))
        seen.update(said)
        return said

    until(lambda: ask(20)["middle"], 10, "the canary's first answer")
    shares = ask(200)
    assert 60 < shares["middle"] < 140, shares
    # a sticky word stays on its side
    assert len(ask(20, **{"X-Tauon-Sticky": "customer-7"})) == 1

    revisions.promote_canary(as_ana, endpoint)
    until(lambda: ask(10) == {"middle": 10}, 10, "the promotion")
    revisions.roll_back(as_ana, endpoint)
    until(lambda: ask(10) == {"left": 10}, 30, "the rollback")
    assert set(seen) == {"left", "middle"}, seen


def answer_of(answer) -> str:  # type: ignore[no-untyped-def]
    return labels_of(answer)[0] if answer.status_code == 200 else answer.text


def test_a_canary_that_fails_takes_itself_back(
    kept: subprocess.Popen, gateway: make.Gateway, as_ana: Actor, ana: User, tenant: Tenant,
    version: ModelVersion, bundles: dict[str, Path],
) -> None:  # fmt: skip
    endpoint = make_endpoint(as_ana, version, requests_per_minute=100_000)
    Endpoint.objects.update(guard_min_requests=20)
    call = Caller(gateway.url, factories.make_token(ana), endpoint)
    routes.publish()
    until(lambda: call().status_code == 200, 30, "the first answer")
    broken = make_model_version(tenant, number=2, bundle=bundles["fragile"])
    canary = revisions.start_canary(as_ana, endpoint, broken, share=5_000).canary
    until(lambda: ready(canary), 30, "the canary")
    until(lambda: 500 in {call(0, 1).status_code for _ in range(30)}, 20, "its failures")

    def gone() -> bool:
        for _ in range(10):
            call(0, 1)
        return endpoint.reload().canary is None

    until(gone, 30, "the rollback")
    assert "taken back by itself" in endpoint.reload().rollout_note
    until(lambda: {call(0, 1).status_code for _ in range(30)} == {200}, 10, "peace")
    assert Sample.objects.filter(revision=canary, errors__gt=0).exists()


def test_a_shadow_is_asked_and_measured_and_nobody_pays_twice(
    kept: subprocess.Popen, gateway: make.Gateway, as_ana: Actor, ana: User, tenant: Tenant,
    version: ModelVersion, bundles: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    endpoint = make_endpoint(as_ana, version, requests_per_minute=100_000)
    call = Caller(gateway.url, factories.make_token(ana), endpoint)
    routes.publish()
    until(lambda: call().status_code == 200, 30, "the first answer")
    shadow = revisions.start_shadow(
        as_ana, endpoint, make_model_version(tenant, number=2, bundle=bundles["two"])
    ).shadow
    until(lambda: ready(shadow), 30, "the shadow")
    asked = 1

    def measured() -> bool:
        nonlocal asked
        asked += 1
        assert answer_of(call(0)) == "left", "a shadow's answer reached a caller"
        return Sample.objects.filter(revision=shadow, is_shadow=True, requests__gt=0).exists()

    until(measured, 30, "a measured shadow")

    def counted_by_class() -> bool:
        nonlocal asked
        asked += 1
        assert answer_of(call(0)) == "left"
        found = Sample.objects.filter(is_shadow=False, batches__gt=0, classes__left__gt=0)
        return found.exists()

    until(counted_by_class, 30, "what workers tell of themselves")
    settings.USAGE_DIR = tmp_path / "usage"
    ship_endpoint_usage()
    counted = sum(UsageEvent.objects.filter(meter_id="endpoint.requests").values_list("quantity", flat=True))
    assert counted == asked


def test_an_idle_endpoint_sleeps_and_a_request_wakes_it(
    kept: subprocess.Popen, gateway: make.Gateway, as_ana: Actor, ana: User, version: ModelVersion
) -> None:
    endpoint = make_endpoint(as_ana, version)
    Endpoint.objects.update(min_replicas=0, zero_after_s=2)
    call = Caller(gateway.url, factories.make_token(ana), endpoint)
    routes.publish()
    until(lambda: call().status_code == 200, 30, "the first answer")
    times = []
    for _ in range(2):
        until(lambda: endpoint.reload().status == "asleep", 30, "falling asleep")
        until(lambda: not Replica.objects.filter(status__in=["ready", "draining"]).exists(), 30, "the end")
        began = time.monotonic()
        answer = call(2)
        times.append(time.monotonic() - began)
        assert answer.status_code == 200, answer.text
        assert labels_of(answer) == ["right"]
        until(lambda: endpoint.reload().status == "live", 5, "being live")
    print("from asleep to the answer:", [f"{one * 1000:.0f} ms" for one in times])
    assert min(times) < 5


def test_a_dead_warm_parent_is_replaced(settings, tmp_path: Path, bundles: dict[str, Path]) -> None:  # type: ignore[no-untyped-def]
    zygote = Zygote()
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "serve.json").write_text(f'{{"bundle": "{bundles["one"]}", "socket": "{folder / "s"}"}}')
    try:
        first = zygote.start(folder, {"PATH": "/usr/bin"})
        assert first is not None
        parent = psutil.Process(first.pid).parent()
        assert parent is not None
        parent.kill()
        until(lambda: first.poll() == -9, 10, "the end of its worker")
        (folder / "out").unlink()  # what the first one said
        second = zygote.start(folder, {"PATH": "/usr/bin"})
        assert second is not None
        until(lambda: '"ready": true' in (folder / "out").read_text(), 20, "the next worker")
        second.terminate()
        assert second.wait() == 0
    finally:
        zygote.close()


def test_a_thousand_sleepers_are_routes_and_nothing_else(
    as_ana: Actor, tenant: Tenant, version: ModelVersion, django_assert_max_num_queries: Any
) -> None:
    first = make_endpoint(as_ana, version)
    many = Endpoint.objects.bulk_create(
        Endpoint(tenant=tenant, name=f"E{n}", slug=f"e{n}", min_replicas=0, replicas_wanted=0)
        for n in range(1_000)
    )
    revisions_of = Revision.objects.bulk_create(
        Revision(tenant=tenant, endpoint=one, number=1, version=version) for one in many
    )
    for endpoint, revision in zip(many, revisions_of, strict=True):
        endpoint.current, endpoint.status = revision, "asleep"
    Endpoint.objects.bulk_update(many, ["current", "status"])
    Endpoint.objects.filter(pk=first.pk).update(status="stopped")
    with django_assert_max_num_queries(12):
        began = time.monotonic()
        found = routes.build()["endpoints"]
        print(f"1,001 routes built in {1000 * (time.monotonic() - began):.0f} ms")
    assert sum(one["sleeps"] and one["status"] == "asleep" for one in found.values()) == 1_000
    keeper = Keeper()
    try:
        assert keeper.take_over()
        with django_assert_max_num_queries(20):  # not one of them is read in a round
            keeper.turn(look=True)
        assert keeper.replica_count == 0
        assert not Replica.objects.exists()
    finally:
        keeper.leave()
        unlock()
        make.forget_routes()
