"""The keeper of replicas, with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from django.conf import settings
from django.db import connection

from billing.models import Allocation, UsageInterval
from jobs import routes
from jobs.models import Endpoint, ModelVersion, Replica
from jobs.services.endpoints import change_endpoint, revise_endpoint, start_endpoint, stop_endpoint
from jobs.services.keeper_lock import unlock
from jobs.services.replicas import Keeper
from jobs.specs_endpoints import EndpointChange
from jobs.states import REPLICA_LIVE, EndpointStatus
from tenants.actor import Actor
from tenants.http import actor_from_user
from tenants.models import ApiToken, Tenant, User
from tenants.services.grants import share
from tenants.services.tokens import revoke_token
from tests import factories
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import Caller, labels_of, make_endpoint, make_model_version, until

# -- processes -----------------------------------------------------------------------------------------------

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models that give different names to the same picture."""
    folder = tmp_path_factory.mktemp("bundles")
    return make.write_tiny_bundle(folder / "one"), make.write_tiny_bundle(folder / "two", lead=1)


@pytest.fixture
def version(tenant: Tenant, bundles: tuple[Path, Path]) -> ModelVersion:
    return make_model_version(tenant, bundle=bundles[0])


@pytest.fixture
def work() -> Iterator[Keeper]:
    """A keeper inside the test, driven by hand."""
    keeper = Keeper()
    assert keeper.take_over()
    yield keeper
    keeper.leave()
    unlock()
    make.forget_routes()


def run_until(keeper: Keeper, holds, what: str, timeout_s: float = 20) -> None:  # type: ignore[no-untyped-def]
    def turned() -> bool:
        keeper.turn(look=True)
        return bool(holds())

    until(turned, timeout_s, what)


def is_live(endpoint: Endpoint) -> bool:
    return endpoint.reload().status == EndpointStatus.LIVE


def workers_of(folder: Path) -> list[psutil.Process]:
    """Model workers that serve from this very folder."""
    found = []
    for process in psutil.process_iter(["cwd"]):  # a fork of the zygote has its parent's command line
        if (process.info["cwd"] or "").startswith(f"{folder}/"):
            found.append(process)
    return found


def test_a_published_endpoint_goes_live_is_billed_and_stops_clean(
    work: Keeper, as_ana: Actor, version: ModelVersion
) -> None:
    endpoint = make_endpoint(as_ana, version, slug="digits")
    run_until(work, lambda: is_live(endpoint), "going live")
    replica = Replica.objects.get(revision__endpoint=endpoint)
    folder = settings.REPLICAS_DIR / replica.public_id
    assert replica.status == "ready"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(replica.address) < 100
    assert routes.build()["endpoints"]["lab/digits"]["workers"] == [replica.address]
    allocation = Allocation.objects.get(subject=endpoint.public_id)
    assert (allocation.meter_id, allocation.ended_at) == ("endpoint.replica", None)

    environment = psutil.Process(replica.handle["pid"]).environ()
    assert not [name for name in environment if "REDIS" in name or "DATABASE" in name or "TAUON" in name]

    stop_endpoint(as_ana, endpoint)
    run_until(work, lambda: replica.reload().status == "stopped", "stopping")
    assert not folder.exists()
    assert not Path(replica.address).exists()
    assert not psutil.pid_exists(replica.handle["pid"])
    allocation = allocation.reload()
    assert allocation.ended_at is not None
    billed = UsageInterval.objects.filter(allocation=allocation)
    assert sum((one.ended_at - one.started_at).total_seconds() for one in billed) > 0


def test_a_dead_worker_is_replaced_and_its_bill_ends(
    work: Keeper, as_ana: Actor, version: ModelVersion
) -> None:
    endpoint = make_endpoint(as_ana, version)
    run_until(work, lambda: is_live(endpoint), "going live")
    first = Replica.objects.get(revision__endpoint=endpoint)
    os.kill(first.handle["pid"], signal.SIGKILL)
    run_until(work, lambda: first.reload().status == "failed", "noticing")
    assert first.reload().error == "The model worker was killed by SIGKILL."
    assert Allocation.objects.get(pk=first.allocations[0]).ended_at is not None
    run_until(work, lambda: is_live(endpoint), "the replacement")
    assert Replica.objects.filter(revision__endpoint=endpoint, status="ready").count() == 1


def test_a_model_that_cannot_load_fails_with_its_own_last_words(
    work: Keeper, as_ana: Actor, tenant: Tenant, bundles: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("jobs.services.deaths.BACK_OFF_S", (0.0,))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_bytes((bundles[0] / "bundle.json").read_bytes())
    (broken / "model.onnx").write_bytes(b"this is no graph")
    endpoint = make_endpoint(as_ana, make_model_version(tenant, bundle=broken))
    run_until(work, lambda: endpoint.reload().status == "failed", "giving up", timeout_s=40)
    assert "does not match its checksum" in endpoint.reload().error
    deaths = Replica.objects.filter(revision__endpoint=endpoint).count()
    assert deaths == 5
    work.turn(look=True)
    assert Replica.objects.filter(revision__endpoint=endpoint).count() == deaths, "it went on trying"
    # a better version, and it lives
    good = make_model_version(tenant, number=2, bundle=bundles[0])
    revise_endpoint(as_ana, endpoint, good)
    run_until(work, lambda: is_live(endpoint), "going live with a better version")
    assert endpoint.reload().error == ""


def test_a_bad_update_leaves_the_working_revision_in_place(
    work: Keeper, as_ana: Actor, tenant: Tenant, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.services.deaths.BACK_OFF_S", (0.0,))
    endpoint = make_endpoint(as_ana, version, slug="digits")
    run_until(work, lambda: is_live(endpoint), "going live")
    revise_endpoint(as_ana, endpoint, make_model_version(tenant, number=2))  # files of one letter
    run_until(work, lambda: endpoint.reload().status == "failed", "giving up", timeout_s=40)
    one = routes.build()["endpoints"]["lab/digits"]
    assert (one["model_version"], len(one["workers"])) == ("1", 1)


def test_missing_files_are_said_on_the_endpoint(
    work: Keeper, as_ana: Actor, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.services.deaths.BACK_OFF_S", (0.0,))

    def lost(_version: ModelVersion, _folder: Path) -> Path:
        raise FileNotFoundError("the storage has no such file")

    work.fetch = lost
    endpoint = make_endpoint(as_ana, version)
    run_until(work, lambda: endpoint.reload().status == "failed", "giving up")
    assert endpoint.reload().error == "the storage has no such file"
    assert not list(settings.REPLICAS_DIR.iterdir())


def test_an_endpoint_stopped_while_it_starts_never_goes_live(
    work: Keeper, as_ana: Actor, version: ModelVersion
) -> None:
    endpoint = make_endpoint(as_ana, version)
    work.turn(look=True)
    stop_endpoint(as_ana, endpoint)
    run_until(work, lambda: not Replica.objects.filter(status__in=REPLICA_LIVE).exists(), "stopping")
    assert endpoint.reload().status == "stopped"
    start_endpoint(as_ana, endpoint)
    run_until(work, lambda: is_live(endpoint), "starting again")


# -- the command, the gateway and a person outside -----------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[subprocess.Popen]:
    with make.keeper(tmp_path) as process:
        yield process
    make.forget_routes()


def test_the_command_serves_and_leaves_nothing_behind(
    kept: subprocess.Popen, as_ana: Actor, version: ModelVersion, tmp_path: Path
) -> None:
    endpoint = make_endpoint(as_ana, version)
    until(lambda: is_live(endpoint), 30, "going live")
    assert len(workers_of(settings.REPLICAS_DIR)) == 1
    kept.terminate()
    assert kept.wait(timeout=10) == 0
    assert workers_of(settings.REPLICAS_DIR) == []
    assert not list(settings.REPLICAS_DIR.iterdir())
    assert Replica.objects.get(revision__endpoint=endpoint).status == "stopped"
    assert not Allocation.objects.open().exists()
    assert endpoint.reload().status == "starting"  # wanted still: it comes up with the next start


@pytest.mark.chaos
def test_a_killed_keeper_takes_its_workers_along_and_the_next_one_tidies_up(
    kept: subprocess.Popen, as_ana: Actor, version: ModelVersion, tmp_path: Path
) -> None:
    endpoint = make_endpoint(as_ana, version)
    until(lambda: is_live(endpoint), 30, "going live")
    first = Replica.objects.get(revision__endpoint=endpoint)
    kept.kill()
    kept.wait()
    until(lambda: workers_of(settings.REPLICAS_DIR) == [], 5, "the death of the worker")
    assert first.reload().status == "ready"  # nobody was left to write it down
    with make.keeper(tmp_path), make.keeper(tmp_path) as second:
        until(lambda: first.reload().status == "stopped", 30, "tidying up")
        until(
            lambda: Replica.objects.filter(revision__endpoint=endpoint, status="ready").exists(),
            30,
            "the next worker",
        )
        # the second copy waits: one endpoint, one worker
        assert second.poll() is None
        assert len(workers_of(settings.REPLICAS_DIR)) == 1
    old = Allocation.objects.get(pk=first.allocations[0])
    assert old.ended_at == old.last_beat_at  # never billed beyond its last sign of life
    assert workers_of(settings.REPLICAS_DIR) == []


def test_a_cut_database_connection_costs_no_worker(
    kept: subprocess.Popen, as_ana: Actor, version: ModelVersion
) -> None:
    """The lock goes with the connection; the keeper gets both back and goes on with the same worker."""
    endpoint = make_endpoint(as_ana, version)
    until(lambda: is_live(endpoint), 30, "going live")
    replica = Replica.objects.get(revision__endpoint=endpoint)
    with connection.cursor() as cursor:
        cursor.execute(  # pg_locks shows every database of the server, those of tests beside this one too
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = %s "
            "and database = (select oid from pg_database where datname = current_database())",
            [0x7A03],
        )
        assert cursor.fetchall() == [(True,)]
    change = EndpointChange.parse({"name": "Renamed"})
    change_endpoint(as_ana, endpoint, change)
    stop_endpoint(as_ana, endpoint)
    until(lambda: replica.reload().status == "stopped", 20, "stopping")
    assert kept.poll() is None
    assert [one.status for one in Replica.objects.all()] == ["stopped"]


def test_from_publishing_to_sharing_to_revoking_through_the_gateway(
    kept: subprocess.Popen,
    as_ana: Actor,
    ana: User,
    ben: User,
    cy: User,
    version: ModelVersion,
    tmp_path: Path,
) -> None:
    endpoint = make_endpoint(as_ana, version, slug="digits")
    limited = factories.make_token(ana, granted_only=True, name="limited")
    tokens = {
        "ana": factories.make_token(ana, name="hers"),
        "cy": factories.make_token(cy),
        "limited": limited,
    }
    with make.gateway(tmp_path) as gateway:
        routes.publish()
        callers = {who: Caller(gateway.url, token, endpoint) for who, token in tokens.items()}
        until(lambda: callers["ana"]().status_code == 200, 30, "the first answer")
        assert labels_of(callers["ana"](0, 1, 2)) == ["left", "middle", "right"]
        # private by default: a stranger finds nothing, a token without a grant may not
        assert httpx.post(callers["ana"].url, json={}).status_code == 401
        assert callers["cy"]().status_code == 404
        assert callers["limited"]().status_code == 403
        share(as_ana, endpoint, permission="endpoints.invoke", with_email="cy@example.org")
        share(
            as_ana, endpoint, permission="endpoints.invoke", with_token=ApiToken.objects.get(name="limited")
        )
        routes.publish()
        until(lambda: callers["cy"]().status_code == 200, 2, "the shared person's answer")
        assert callers["limited"]().status_code == 200
        revoke_token(as_ana, ApiToken.objects.get(name="hers"))
        routes.publish()
        until(lambda: callers["ana"]().status_code == 401, 1, "the revocation")


@pytest.mark.chaos
def test_a_killed_worker_fails_no_request(
    kept: subprocess.Popen, as_ana: Actor, ana: User, version: ModelVersion, tmp_path: Path
) -> None:
    endpoint = make_endpoint(as_ana, version)
    token = factories.make_token(ana)
    with make.gateway(tmp_path) as gateway:
        routes.publish()
        call = Caller(gateway.url, token, endpoint)
        until(lambda: call().status_code == 200, 30, "the first answer")
        replica = Replica.objects.get(revision__endpoint=endpoint, status="ready")
        pid = replica.handle["pid"]
        os.kill(pid, signal.SIGSTOP)
        answers: list[httpx.Response] = []
        waiting = threading.Thread(target=lambda: answers.append(call(2)))
        waiting.start()
        with contextlib.suppress(TimeoutError):
            waiting.join(timeout=0.3)
        os.kill(pid, signal.SIGKILL)
        waiting.join(timeout=20)
        assert [answer.status_code for answer in answers] == [200], answers
        assert labels_of(answers[0]) == ["right"]


def test_revisions_roll_without_a_failed_request(
    kept: subprocess.Popen, as_ana: Actor, ana: User, tenant: Tenant, version: ModelVersion,
    bundles: tuple[Path, Path], tmp_path: Path,
) -> None:  # fmt: skip
    endpoint = make_endpoint(as_ana, version)
    token = factories.make_token(ana)
    other = make_model_version(tenant, number=2, bundle=bundles[1])
    Endpoint.objects.update(requests_per_minute=1_000_000)
    seen: Counter[tuple[int, str]] = Counter()
    done = threading.Event()
    with make.gateway(tmp_path) as gateway:
        routes.publish()
        until(lambda: Caller(gateway.url, token, endpoint)().status_code == 200, 30, "the first answer")

        def load() -> None:
            call = Caller(gateway.url, token, endpoint)
            while not done.is_set():
                answer = call(0)
                label = labels_of(answer)[0] if answer.status_code == 200 else answer.text
                seen[answer.status_code, label] += 1

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for to, label in ((other, "middle"), (version, "left")):
                revise_endpoint(actor_from_user(ana), endpoint, to)
                before = seen[200, label]
                until(
                    lambda label=label, before=before: seen[200, label] > before + 20, 20, f"answers {label}"
                )
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert {status for status, _label in seen} == {200}, seen
    ready = Replica.objects.filter(revision__endpoint=endpoint, status="ready")
    until(
        lambda: list(ready.values_list("revision__number", flat=True)) == [3],
        30,
        "retires the revisions before",
    )
