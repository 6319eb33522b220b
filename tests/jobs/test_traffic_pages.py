"""Pages and API of canary, shadow, rollback, workers and live numbers."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from jobs.gateway.pulse import BOUNDS_MS
from jobs.models import Endpoint, ModelVersion, Replica, Sample
from jobs.services import traffic
from jobs.states import EndpointStatus, ReplicaStatus
from tenants.actor import SYSTEM, Actor
from tenants.lifecycle import move
from tenants.models import Tenant, User
from tests.factories import ApiOf, BrowserOf, make_user
from tests.jobs.factories_endpoints import make_endpoint, make_model_version

pytestmark = pytest.mark.django_db


@pytest.fixture
def endpoint(as_ana: Actor, tenant: Tenant) -> Endpoint:
    found = make_endpoint(as_ana, make_model_version(tenant), slug="digits")
    replica = Replica.objects.create(tenant=tenant, revision=found.current, fence="f")
    move(replica, to=ReplicaStatus.READY, by=SYSTEM, address="/w/1")
    move(found, to=EndpointStatus.LIVE, by=SYSTEM)
    return found


@pytest.fixture
def other(tenant: Tenant) -> ModelVersion:
    return make_model_version(tenant, number=2)


def at(name: str, endpoint: Endpoint) -> str:
    return reverse(f"jobs:endpoint_{name}", args=[endpoint.public_id])


def sample(
    endpoint: Endpoint, *, ms: float = 2, requests: int = 100, errors: int = 0, ago_s: float = 20
) -> None:
    latency = [0] * (len(BOUNDS_MS) + 1)
    latency[BOUNDS_MS.index(ms)] = requests
    Sample.objects.create(
        endpoint=endpoint, revision=endpoint.current, at=timezone.now() - timedelta(seconds=ago_s), seconds=5,
        requests=requests, errors=errors, rows=requests, batches=requests // 4, latency=latency, in_flight=3,
        waiting=1, replicas=1,
    )  # fmt: skip


def test_a_canary_is_begun_moved_promoted_and_rolled_back_by_its_buttons(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint, other: ModelVersion
) -> None:
    browser = browser_of(ana)
    browser.post(at("canary", endpoint), {"version": other.public_id, "percent": "2.5"})
    found = endpoint.reload()
    assert found.canary is not None and found.canary_share == 250
    page = browser.get(f"{endpoint.get_absolute_url()}?tab=revisions").content.decode()
    assert 'type="range"' in page and "Revision 2 is being tried" in page
    browser.post(at("canary", endpoint), {"percent": "40"})
    assert endpoint.reload().canary_share == 4_000
    browser.post(at("promote", endpoint))
    assert endpoint.reload().current.number == 2
    page = browser.get(f"{endpoint.get_absolute_url()}?tab=revisions").content.decode()
    assert "Roll back to revision 1" in page
    browser.post(at("rollback", endpoint))
    assert endpoint.reload().current.number == 1


def test_a_share_that_is_none_is_said_and_changes_nothing(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint, other: ModelVersion
) -> None:
    browser = browser_of(ana)
    for percent in ("140", "-1", "much", ""):
        answer = browser.post(
            at("canary", endpoint), {"version": other.public_id, "percent": percent}, follow=True
        )
        assert "between 0 and 100" in answer.content.decode()
    assert endpoint.reload().canary is None


def test_a_shadow_is_begun_and_stopped_by_its_buttons(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint, other: ModelVersion
) -> None:
    browser = browser_of(ana)
    browser.post(at("shadow", endpoint), {"version": other.public_id, "percent": "10"})
    assert endpoint.reload().shadow_share == 1_000
    assert "Stop the shadow" in browser.get(f"{endpoint.get_absolute_url()}?tab=revisions").content.decode()
    browser.post(at("shadow", endpoint))
    assert endpoint.reload().shadow is None


def test_the_traffic_page_shows_what_the_samples_say(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint
) -> None:
    browser = browser_of(ana)
    page = browser.get(at("traffic", endpoint)).content.decode()
    assert "live-traffic" in page
    sample(endpoint, requests=90, errors=9)
    sample(endpoint, requests=30, ms=100)
    said = json.loads(browser.get(at("traffic_now", endpoint)).content)
    rates = [y for _x, y in said["charts"]["rate"]["Revision 1"]]
    assert len(rates) == 90 and sorted(rates)[-2:] == [0.0, 12.0]
    assert max(y for _x, y in said["charts"]["errors"]["Errors"]) == 0.9
    assert "7.5 %" in said["now"] and "120" in said["now"]
    last = traffic.lately(endpoint, window=timedelta(minutes=1))
    assert last.p50_ms is not None and last.p50_ms <= 2
    assert last.p99_ms is not None and 70 < last.p99_ms <= 100
    assert last.batch == pytest.approx(120 / 29)


def test_workers_are_set_by_the_form_with_their_warm_hours(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint
) -> None:
    browser = browser_of(ana)
    sent = {
        "min_replicas": 0, "max_replicas": 4, "target_concurrency": 16, "scale_up_after_s": 3,
        "scale_down_after_s": 30, "zero_after_s": 60, "warm_days": "0,1,2,3,4", "warm_from": "08:00",
        "warm_to": "18:00",
    }  # fmt: skip
    assert browser.post(at("scaling", endpoint), sent).status_code == 302
    found = endpoint.reload()
    assert (found.min_replicas, found.max_replicas, found.target_concurrency) == (0, 4, 16)
    assert found.warm_hours == [{"days": [0, 1, 2, 3, 4], "from": "08:00", "to": "18:00", "replicas": 1}]
    answer = browser.post(at("scaling", endpoint), {**sent, "min_replicas": 5})
    assert answer.status_code == 422
    assert "cannot be more than the most" in answer.content.decode()


def test_bounds_of_a_canary_are_set_by_the_form(browser_of: BrowserOf, ana: User, endpoint: Endpoint) -> None:
    sent = {"error_percent": "1.5", "guard_p95_ratio": "3", "guard_min_requests": "200"}
    browser_of(ana).post(at("guard", endpoint), sent)
    found = endpoint.reload()
    assert (found.guard_error_share, found.guard_p95_ratio, found.guard_min_requests) == (0.015, 3.0, 200)


def test_the_same_over_the_api(api_of: ApiOf, ana: User, endpoint: Endpoint, other: ModelVersion) -> None:
    api = api_of(ana)
    base = f"/api/v1/endpoints/{endpoint.public_id}"
    begun = api.put(f"{base}/canary", {"version": other.public_id}, format="json")
    assert begun.status_code == 201, begun.content
    assert begun.json()["canary"] | {"number": 2, "percent": 5.0} == begun.json()["canary"]
    assert api.patch(f"{base}/canary", {"percent": 30}, format="json").json()["canary"]["percent"] == 30
    refused = api.patch(f"{base}/canary", {"percent": 101}, format="json")
    assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/percent"
    sample(endpoint)
    told = api.get(f"{base}/traffic").json()
    assert [one["role"] for one in told["revisions"]] == ["stable", "canary"]
    assert told["last_minute"]["requests"] == 100
    assert api.post(f"{base}/promote").json()["revision"]["number"] == 2
    assert api.post(f"{base}/rollback").json()["revision"]["number"] == 1
    assert (
        api.put(f"{base}/shadow", {"version": other.public_id, "percent": 50}, format="json").status_code
        == 201
    )
    assert api.delete(f"{base}/shadow").json()["shadow"] is None
    changed = api.patch(base, {"min_replicas": 0, "zero_after_s": 60}, format="json")
    assert changed.json()["min_replicas"] == 0
    refused = api.patch(base, {"zero_after_s": 1, "warm_hours": [{"days": [9]}]}, format="json")
    pointers = {one["pointer"] for one in refused.json()["errors"]}
    assert pointers == {"/zero_after_s", "/warm_hours"}


def test_who_may_look_may_not_steer(
    browser_of: BrowserOf, tenant: Tenant, endpoint: Endpoint, other: ModelVersion
) -> None:
    browser = browser_of(make_user("vera@example.org", tenant=tenant, role="viewer"))
    page = browser.get(at("traffic", endpoint))
    assert page.status_code == 200 and 'data-dialog="scaling"' not in page.content.decode()
    for name in ("canary", "promote", "rollback", "shadow", "scaling", "guard"):
        assert browser.post(at(name, endpoint), {"version": other.public_id}).status_code == 403, name


def test_prometheus_reads_what_endpoints_do(
    client: Client, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAUON_METRICS_TOKEN", "scraper")
    sample(endpoint, requests=120, errors=12)
    said = client.get("/metrics", headers={"Authorization": "Bearer scraper"}).content.decode()
    which = f'{{endpoint="{endpoint.public_id}",revision="1",shadow="false",tenant="{endpoint.tenant.public_id}"}}'
    assert f"tauon_endpoint_requests_per_second{which} 2.0" in said
    assert f"tauon_endpoint_error_share{which} 0.1" in said
    assert 'tauon_endpoints{status="live"} 1.0' in said
    assert "tauon_endpoint_replicas_ready{" in said
