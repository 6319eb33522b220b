"""The request log in the database: sealed, shown to those who may edit, exported, and forgotten in time."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from jobs import routes
from jobs.models import Endpoint, LoggedRequest
from jobs.services import requests
from jobs.services.endpoints import change_endpoint
from jobs.services.keys import create_key
from jobs.services.requests import Wanted
from jobs.specs_endpoints import EndpointChange
from tenants.actor import Actor
from tenants.errors import Forbidden, Hidden, Invalid
from tenants.http import actor_from_user
from tenants.models import AuditEntry, Tenant, User
from tests.factories import ApiOf, BrowserOf, make_user
from tests.jobs.factories_endpoints import make_endpoint, make_model_version

pytestmark = pytest.mark.django_db

INTERFACE = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}], "outputs": [],
             "classes": ["good", "bad"], "sample": {}}  # fmt: skip


@pytest.fixture
def endpoint(as_ana: Actor, tenant: Tenant) -> Endpoint:
    found = make_endpoint(as_ana, make_model_version(tenant, interface=INTERFACE), slug="digits")
    return change_endpoint(as_ana, found, EndpointChange.parse({"log_percent": 100}))


def line(endpoint: Endpoint, **more: Any) -> dict[str, Any]:
    return {"id": "call-0001", "at": timezone.now().isoformat(), "tenant": endpoint.tenant.public_id,
            "endpoint": endpoint.public_id, "revision": "1", "token": "", "status": 200, "rows": 1, "us": 1500,
            "input": {"texts": ["a fine day"]}, "output": {"predictions": [{"label": "good"}]}, "label": "good",
            **more}  # fmt: skip


def write(*lines: dict[str, Any], name: str = "rq-boot-1.jsonl") -> Path:
    """A file as a scribe leaves it."""
    path = Path(settings.REQUESTS_DIR) / name
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def ship(*lines: dict[str, Any], name: str = "rq-boot-1.jsonl") -> None:
    write(*lines, name=name)
    requests.ship_logged_requests()


def at(endpoint: Endpoint, what: str = "requests") -> str:
    return reverse(f"jobs:endpoint_{what}", args=[endpoint.public_id])


def test_lines_are_sealed_with_the_tenants_key_and_their_file_is_gone(endpoint: Endpoint) -> None:
    path = write(line(endpoint), line(endpoint, id="call-0002", status=422, label=""))
    assert requests.ship_logged_requests() == 2
    assert not path.exists()
    assert requests.ship_logged_requests() == 0
    rows = list(LoggedRequest.objects.all())
    assert b"fine day" not in b"".join(bytes(row.sealed) for row in rows)
    (one, _other) = sorted(requests.entries(endpoint.tenant, rows), key=lambda entry: entry.row.request_id)
    assert one.input == {"texts": ["a fine day"]} and one.row.label == "good"


def test_a_file_that_is_read_twice_adds_nothing(endpoint: Endpoint) -> None:
    for _ in range(2):  # the machine died between the commit and the end of the file
        ship(line(endpoint), {**line(endpoint), "id": "call-0002"})
    assert LoggedRequest.objects.count() == 2


def test_a_file_its_scribe_still_writes_is_left_alone(endpoint: Endpoint) -> None:
    path = write(line(endpoint))
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert requests.ship_logged_requests() == 0 and path.exists()
    os.close(held)
    assert requests.ship_logged_requests() == 1


def test_a_file_another_shipper_finishes_just_before_the_lock_ends_no_round(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(line(endpoint))
    write(line(endpoint, id="call-0002"), name="rq-boot-2.jsonl")
    flock = fcntl.flock

    def late(file: int, how: int) -> None:
        path.unlink(missing_ok=True)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert requests.ship_logged_requests() == 1
    assert LoggedRequest.objects.get().request_id == "call-0002"


def test_the_oldest_requests_go_where_a_log_weighs_too_much(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now()
    for number in range(4):
        moment = (now - timedelta(hours=number)).isoformat()
        ship(line(endpoint, id=f"call-{number}", at=moment), name=f"rq-boot-{number}.jsonl")
    size = len(bytes(LoggedRequest.objects.all()[0].sealed))
    monkeypatch.setattr(requests, "MOST_BYTES", 4 * size)
    assert requests.forget_logged_requests() == 0
    monkeypatch.setattr(requests, "MOST_BYTES", 2 * size + 1)
    assert requests.forget_logged_requests() == 2
    assert set(LoggedRequest.objects.values_list("request_id", flat=True)) == {"call-0", "call-1"}


def test_broken_lines_and_endpoints_that_are_gone_hold_up_nobody(endpoint: Endpoint) -> None:
    path = write(
        {**line(endpoint), "endpoint": "ep_never"}, line(endpoint, us="soon"), line(endpoint, id="call-0009")
    )
    path.write_bytes(b'{"id": "half a li\n' + path.read_bytes() + b'[1]\n{"id": "call')
    assert requests.ship_logged_requests() == 1
    assert LoggedRequest.objects.get().request_id == "call-0009"


def test_an_old_request_is_forgotten_after_the_days_of_its_endpoint(
    as_ana: Actor, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now()
    for number, days in enumerate((0, 2, 6, 8)):
        ship(line(endpoint, at=(now - timedelta(days=days)).isoformat()), name=f"rq-boot-{number}.jsonl")
    assert requests.forget_logged_requests() == 1
    change_endpoint(as_ana, endpoint, EndpointChange.parse({"log_days": 3}))
    assert requests.forget_logged_requests() == 1
    monkeypatch.setattr(requests, "MOST_KEPT", 1)
    assert requests.forget_logged_requests() == 1
    assert now - LoggedRequest.objects.get().at < timedelta(hours=1), "the newest stays"


def test_gateways_are_told_what_to_keep_and_what_to_hide(as_ana: Actor, endpoint: Endpoint) -> None:
    def told() -> Any:
        return routes.build()["endpoints"][f"{endpoint.tenant.slug}/digits"]["log"]

    assert told() == {"share": 10_000, "masks": [], "texts": True}
    body = {"log_percent": 0.5, "log_masks": [" text ", "", "text", "IP\0"], "log_mask_texts": False}
    change_endpoint(as_ana, endpoint, EndpointChange.parse(body))
    assert told() == {"share": 50, "masks": ["text", "IP"], "texts": False}
    change_endpoint(as_ana, endpoint, EndpointChange.parse({"log_percent": 0}))
    assert told() is None
    with pytest.raises(Invalid) as refused:
        EndpointChange.parse({"log_percent": 101, "log_days": 0, "log_masks": "text", "log_mask_texts": 1})
    pointers = {one.pointer for one in refused.value.faults}
    assert pointers == {"/log_percent", "/log_days", "/log_masks", "/log_mask_texts"}


def test_an_endpoint_keeps_nothing_unless_somebody_turns_the_log_on(as_ana: Actor, tenant: Tenant) -> None:
    found = make_endpoint(as_ana, make_model_version(tenant, name="other"), slug="quiet")
    assert found.log_percent == 0 and found.log_mask_texts is True
    assert routes.build()["endpoints"][f"{tenant.slug}/quiet"]["log"] is None


def test_only_who_may_edit_the_endpoint_reads_the_log_and_that_is_written_down(
    as_ana: Actor, as_cy: Actor, endpoint: Endpoint, tenant: Tenant
) -> None:
    viewer = actor_from_user(make_user("vera@example.org", tenant=tenant, role="viewer"))
    ship(line(endpoint))
    with pytest.raises(Hidden):
        requests.read_requests(as_cy, endpoint, Wanted())
    for refused in (
        lambda: requests.read_requests(viewer, endpoint, Wanted()),
        lambda: requests.export_requests(viewer, endpoint, Wanted(), format="csv"),
    ):
        with pytest.raises(Forbidden):
            refused()
    assert not AuditEntry.objects.filter(action__startswith="endpoint.requests").exists()
    assert requests.read_requests(as_ana, endpoint, Wanted()).count() == 1
    list(requests.export_requests(as_ana, endpoint, Wanted(), format="csv"))
    told = AuditEntry.objects.filter(action__startswith="endpoint.requests").order_by("pk")
    assert [one.action for one in told] == ["endpoint.requests_read", "endpoint.requests_exported"]
    assert {one.actor_user_id for one in told} == {as_ana.user.pk}


def test_the_page_turns_the_log_on_shows_it_and_filters(
    browser_of: BrowserOf, as_ana: Actor, ana: User, endpoint: Endpoint
) -> None:
    browser = browser_of(ana)
    key, _plain = create_key(as_ana, endpoint, name="The shop", expires_in_days=None)
    change_endpoint(as_ana, endpoint, EndpointChange.parse({"log_percent": 0}))
    assert "Nothing is kept" in browser.get(at(endpoint)).content.decode()
    sent = {"log_percent": "12.5", "log_days": "30", "log_masks": "text\nname\n"}
    assert browser.post(at(endpoint), sent).status_code == 302
    found = endpoint.reload()
    assert (found.log_percent, found.log_days, found.log_mask_texts) == (12.5, 30, False)
    assert found.log_masks == ["text", "name"]
    wrong = browser.post(at(endpoint), {**sent, "log_percent": "200"})
    assert wrong.status_code == 422
    assert "No request yet" in browser.get(at(endpoint)).content.decode()
    token = key.token.public_id
    ship(
        line(endpoint, token=token), line(endpoint, id="call-bad", status=500, label="", output={"code": "x"})
    )
    page = browser.get(at(endpoint)).content.decode()
    assert "The shop" in page and "a fine day" in page and "call-bad" in page
    page = browser.get(at(endpoint) + "?status=5xx").content.decode()
    assert "call-bad" in page and "call-0001" not in page
    page = browser.get(at(endpoint) + "?label=good").content.decode()
    assert "call-0001" in page and "call-bad" not in page
    assert "No request like this" in browser.get(at(endpoint) + "?status=4xx").content.decode()
    assert browser.get(at(endpoint) + "?status=99999999999999999999&label=x&page=9").status_code == 200
    page = browser.get(f"{endpoint.get_absolute_url()}?tab=try").content.decode()
    assert at(endpoint) in page


def test_what_was_not_kept_is_said(browser_of: BrowserOf, ana: User, endpoint: Endpoint) -> None:
    gap = {name: line(endpoint)[name] for name in ("at", "tenant", "endpoint")}
    ship(line(endpoint, dropped=12), {**gap, "dropped": 30})
    assert "42 requests of the last 24 hours" in browser_of(ana).get(at(endpoint)).content.decode()


def test_exports_hold_everything_and_no_formula(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "AT_ONCE", 3)
    browser = browser_of(ana)
    moment = timezone.now().isoformat()  # of several: the pages of an export must not lose one
    ship(*[line(endpoint, id=f"call-{n:04}", at=moment, label="=1+1") for n in range(8)])
    answer = browser.get(at(endpoint, "requests_export") + "?format=jsonl")
    assert "attachment" in answer["Content-Disposition"]
    found = [json.loads(one) for one in b"".join(answer.streaming_content).splitlines()]
    assert sorted(one["request_id"] for one in found) == [f"call-{n:04}" for n in range(8)]
    assert found[0]["input"] == {"texts": ["a fine day"]} and found[0]["latency_ms"] == 1.5
    answer = browser.get(at(endpoint, "requests_export") + "?format=csv&status=2xx")
    text = b"".join(answer.streaming_content).decode()
    assert len(text.splitlines()) == 9 and "'=1+1" in text


def test_the_same_over_the_api(api_of: ApiOf, ana: User, endpoint: Endpoint) -> None:
    api = api_of(ana)
    base = f"/api/v1/endpoints/{endpoint.public_id}"
    changed = api.patch(base, {"log_percent": 50, "log_masks": ["text"], "log_days": 1}, format="json")
    assert changed.status_code == 200, changed.content
    assert changed.json()["log_percent"] == 50 and changed.json()["log_masks"] == ["text"]
    ship(*[line(endpoint, id=f"call-{n:04}", status=200 + 222 * (n % 2)) for n in range(5)])
    page = api.get(f"{base}/requests?limit=2").json()
    assert page["has_more"] and len(page["data"]) == 2
    rest = api.get(f"{base}/requests?limit=200&cursor={page['next_cursor']}").json()
    assert len(rest["data"]) == 3 and not rest["has_more"]
    assert {one["status"] for one in api.get(f"{base}/requests?status=4xx").json()["data"]} == {422}
    one = page["data"][0]
    assert one["input"] == {"texts": ["a fine day"]} and one["latency_ms"] == 1.5 and one["key"] is None


def test_colleagues_who_may_only_look_do_not_see_the_tab(
    browser_of: BrowserOf, api_of: ApiOf, tenant: Tenant, endpoint: Endpoint
) -> None:
    vera = make_user("vera@example.org", tenant=tenant, role="viewer")
    browser = browser_of(vera)
    assert at(endpoint) not in browser.get(endpoint.get_absolute_url()).content.decode()
    for what in ("requests", "requests_export"):
        assert browser.get(at(endpoint, what)).status_code == 403
    assert browser.post(at(endpoint), {"log_percent": "100", "log_days": "1"}).status_code == 403
    assert api_of(vera).get(f"/api/v1/endpoints/{endpoint.public_id}/requests").status_code == 403
