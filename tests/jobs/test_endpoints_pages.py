"""Pages and API of endpoints: who sees what, what forms do, what the playground says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.urls import reverse

from billing.models import UsageEvent
from jobs import routes
from jobs.forms_endpoints import TryForm
from jobs.models import Endpoint, Replica
from jobs.services.endpoints import stop_endpoint
from jobs.snippets import curl, python
from jobs.states import EndpointStatus, ReplicaStatus
from tenants.actor import SYSTEM, Actor
from tenants.lifecycle import move
from tenants.models import ApiToken, Tenant, User
from tenants.services.grants import share
from tests import factories
from tests.factories import ApiOf, BrowserOf
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import infer_body, make_endpoint, make_model_version, picture

pytestmark = pytest.mark.django_db

TABLE = {
    "inputs": [
        {"name": "age", "datatype": "FP32", "shape": [-1]},
        {"name": "town's name", "datatype": "BYTES", "shape": [-1]},
    ],
    "classes": ["no", "yes"],
    "sample": {"age": [41.5], "town's name": ["Ulm"]},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def endpoint(as_ana: Actor, tenant: Tenant, bundle: Path) -> Endpoint:
    return make_endpoint(as_ana, make_model_version(tenant, bundle=bundle), slug="digits")


@pytest.fixture
def live(endpoint: Endpoint, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Answered by a real worker."""
    folder = tmp_path_factory.mktemp("w")
    with make.worker(bundle, folder):
        replica = Replica.objects.create(tenant=endpoint.tenant, revision=endpoint.current, fence="f")
        move(replica, to=ReplicaStatus.READY, by=SYSTEM, address=str(folder / "s"))
        move(endpoint, to=EndpointStatus.LIVE, by=SYSTEM)
        yield endpoint


def at(name: str, endpoint: Endpoint) -> str:
    return reverse(f"jobs:endpoint_{name}", args=[endpoint.public_id])


# -- pages ---------------------------------------------------------------------------------------------------


def test_the_empty_list_leads_on(browser_of: BrowserOf, ana: User, tenant: Tenant) -> None:
    page = browser_of(ana).get("/endpoints/").content.decode()
    assert "Train a model" in page
    version = make_model_version(tenant)
    page = browser_of(ana).get("/endpoints/").content.decode()
    assert version.public_id in page and "curl -s" in page


def test_publishing_by_the_form(browser_of: BrowserOf, ana: User, tenant: Tenant) -> None:
    version = make_model_version(tenant)
    browser = browser_of(ana)
    page = browser.get(f"/endpoints/new?version={version.public_id}").content.decode()
    assert f'value="{version.public_id}" selected' in page
    sent = {"name": "My Digits", "version": version.public_id, "slug": "", "requests_per_minute": 60}
    answer = browser.post("/endpoints/new", sent)
    endpoint = Endpoint.objects.get()
    assert answer.headers["Location"] == endpoint.get_absolute_url()
    assert (endpoint.slug, endpoint.requests_per_minute, endpoint.is_public) == ("my-digits", 60, False)
    again = browser.post("/endpoints/new", sent)
    assert again.status_code == 422
    assert "is the address of another endpoint" in again.content.decode()


@pytest.mark.parametrize("tab", ["try", "revisions", "settings"])
def test_every_tab_opens_for_the_owner(tab: str, browser_of: BrowserOf, ana: User, live: Endpoint) -> None:
    page = browser_of(ana).get(f"{live.get_absolute_url()}?tab={tab}")
    assert page.status_code == 200
    assert live.base_url in page.content.decode()


def test_strangers_get_404_on_every_page_and_colleagues_403(
    browser_of: BrowserOf, cy: User, tenant: Tenant, endpoint: Endpoint
) -> None:
    vera = factories.make_user("vera@example.org", tenant=tenant, role="viewer")
    assert browser_of(cy).get(at("detail", endpoint)).status_code == 404
    assert browser_of(cy).get(at("status", endpoint)).status_code == 404
    assert browser_of(vera).get(at("detail", endpoint)).status_code == 200
    for name in ("try", "revise", "settings", "share", "unshare", "stop", "start"):
        assert browser_of(cy).post(at(name, endpoint)).status_code == 404, name
        assert browser_of(vera).post(at(name, endpoint)).status_code == 403, name
    assert browser_of(vera).get("/endpoints/new").status_code == 403


def test_somebody_it_is_shared_with_sees_it_and_not_what_it_costs(
    browser_of: BrowserOf, as_ana: Actor, cy: User, live: Endpoint
) -> None:
    share(as_ana, live, permission="endpoints.invoke", with_email="cy@example.org")
    assert live.name in browser_of(cy).get("/endpoints/").content.decode()
    page = browser_of(cy).get(at("detail", live)).content.decode()
    assert "Shared with you" in page
    assert "Cost so far" not in page
    sent = {"in-0": json.dumps(picture(2).ravel().tolist())}
    assert "right" in browser_of(cy).post(at("try", live), sent).content.decode()


def test_the_playground_answers_and_counts(browser_of: BrowserOf, ana: User, live: Endpoint) -> None:
    sent = {"in-0": json.dumps(picture(0).ravel().tolist())}
    fragment = browser_of(ana).post(at("try", live), sent, headers={"HX-Request": "true"})
    page = fragment.content.decode()
    assert fragment.status_code == 200
    assert '<p class="verdict">left</p>' in page
    assert "ms · revision 1" in page
    assert "<html" not in page
    event = UsageEvent.objects.get(source="playground")
    assert (int(event.quantity), event.subject) == (1, live.public_id)
    # without scripts: the same as a whole page
    whole = browser_of(ana).post(at("try", live), sent).content.decode()
    assert "<html" in whole and '<p class="verdict">left</p>' in whole


def test_a_wrong_input_is_named_and_costs_nothing(browser_of: BrowserOf, ana: User, live: Endpoint) -> None:
    answer = browser_of(ana).post(at("try", live), {"in-0": "[1, 2]"})
    assert answer.status_code == 422
    assert "Exactly 64 finite numbers" in answer.content.decode()
    assert not UsageEvent.objects.filter(source="playground").exists()


def test_the_playground_without_a_worker_says_so(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint
) -> None:
    sent = {"in-0": json.dumps(picture(0).ravel().tolist())}
    page = browser_of(ana).post(at("try", endpoint), sent).content.decode()
    assert "No worker of this endpoint is ready" in page


def test_the_badge_follows_and_the_page_is_drawn_anew(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint
) -> None:
    waiting = browser_of(ana).get(at("status", endpoint))
    assert "every 2s" in waiting.content.decode()
    assert "HX-Refresh" not in waiting.headers
    move(endpoint, to=EndpointStatus.LIVE, by=SYSTEM)
    done = browser_of(ana).get(at("status", endpoint))
    assert done.headers["HX-Refresh"] == "true"
    assert "every 2s" not in done.content.decode()


def test_revisions_settings_sharing_and_stopping_by_forms(
    browser_of: BrowserOf, ana: User, cy: User, tenant: Tenant, live: Endpoint
) -> None:
    browser = browser_of(ana)
    newer = make_model_version(tenant, number=2)
    assert browser.post(at("revise", live), {"version": newer.public_id}).status_code == 302
    assert live.reload().current.number == 2
    assert browser.post(at("revise", live), {"version": "ver_none"}).status_code == 422
    assert browser.post(at("revise", live), {"version": "ver\0"}).status_code == 422
    sent = {"name": "Renamed", "requests_per_minute": 5, "is_public": "on"}
    assert browser.post(at("settings", live), sent).status_code == 302
    assert (live.reload().name, live.reload().is_public) == ("Renamed", True)
    assert "tenant pays for every answer" in browser.get(at("detail", live)).content.decode()
    assert browser.post(at("settings", live), {"name": ""}).status_code == 422
    sent = {"email": "cy@example.org", "token": "", "permission": "endpoints.invoke"}
    assert browser.post(at("share", live), sent).status_code == 302
    assert browser_of(cy).get(at("detail", live)).status_code == 200
    refused = browser.post(at("share", live), {**sent, "email": "nobody@example.org"})
    assert "not the confirmed address of anybody here" in refused.content.decode()
    assert browser.post(at("unshare", live), {"kind": "person", "holder": "\0"}).status_code == 422
    assert browser.post(at("unshare", live), {"kind": "token", "holder": "a\0b"}).status_code == 422
    browser.post(at("unshare", live), {"kind": "person", "holder": "cy@example.org"})
    assert browser_of(cy).get(at("detail", live)).status_code == 404
    assert browser.post(at("stop", live)).status_code == 302
    assert live.reload().status == "stopped"
    assert browser.post(at("start", live)).status_code == 302
    assert live.reload().status == "starting"


def test_forms_are_made_from_what_the_model_takes() -> None:
    form = TryForm(TABLE, {"in-0": "", "in-1": "Bonn"})
    assert [field.label for field in form.plain] == ["age", "town's name"]
    assert form.is_valid()
    assert [one["data"] for one in form.body()["inputs"]] == [
        [None],
        ["Bonn"],
    ]
    text = TryForm({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}]}, {"in-0": "hello"})
    assert "<textarea" in str(text["in-0"])
    assert text.is_valid() and text.body()["inputs"][0]["shape"] == [1]
    assert text.field_at("/inputs/0/data/0") == "in-0" and text.field_at("/outputs/0") is None


def test_snippets_are_right_in_their_languages(endpoint: Endpoint) -> None:
    body = {"inputs": [{"name": "town's name", "data": ["it's", None]}]}
    words = shlex.split(curl(endpoint, body))
    assert json.loads(words[words.index("-d") + 1]) == body
    assert "Authorization: Bearer $TAUON_TOKEN" in words
    code = python(endpoint, body)
    compile(code, "snippet", "exec")
    assert "None" in code and "null" not in code
    endpoint.is_public = True
    assert "TAUON_TOKEN" not in curl(endpoint, body) + python(endpoint, body)


# -- REST ----------------------------------------------------------------------------------------------------


def test_the_life_of_an_endpoint_over_rest(api_of: ApiOf, ana: User, tenant: Tenant, bundle: Path) -> None:
    api = api_of(ana)
    version, newer = (make_model_version(tenant, number=number, bundle=bundle) for number in (1, 2))
    made = api.post("/api/v1/endpoints", {"name": "Digits", "version": version.public_id})
    assert made.status_code == 201, made.content
    one = made.json()
    assert one["infer_url"].endswith("/t/lab/digits/v2/models/digits/infer")
    assert (one["status"], one["is_public"], one["ready_replicas"]) == ("starting", False, 0)
    assert one["revision"]["version"] == version.public_id
    here = f"/api/v1/endpoints/{one['id']}"
    assert api.get("/api/v1/endpoints").json()["data"] == [one]
    assert api.get(here).json() == one
    changed = api.patch(here, {"requests_per_minute": 7}).json()
    assert (changed["requests_per_minute"], changed["name"]) == (7, "Digits")
    revised = api.post(f"{here}/revisions", {"version": newer.public_id})
    assert (revised.status_code, revised.json()["revision"]["number"]) == (201, 2)
    assert [row["number"] for row in api.get(f"{here}/revisions").json()["data"]] == [2, 1]
    assert api.delete(here).json()["status"] == "stopped"
    assert api.post(f"{here}/start").json()["status"] == "starting"


def test_wrong_bodies_are_named_by_pointers(api_of: ApiOf, ana: User, endpoint: Endpoint) -> None:
    api = api_of(ana)
    refused = api.post("/api/v1/endpoints", {"name": 3, "version": "ver_x", "colour": "red"})
    assert refused.status_code == 422
    assert {one["pointer"] for one in refused.json()["errors"]} == {"/name", "/version", "/colour"}
    taken = {"name": "Digits", "slug": "digits", "version": endpoint.current.version.public_id}
    assert api.post("/api/v1/endpoints", taken).json()["errors"][0]["pointer"] == "/slug"
    here = f"/api/v1/endpoints/{endpoint.public_id}"
    assert (
        api.patch(here, {"requests_per_minute": 0}).json()["errors"][0]["pointer"] == "/requests_per_minute"
    )
    assert api.patch(here, [1]).status_code == 422
    assert api.post(f"{here}/revisions", {}).json()["errors"][0]["pointer"] == "/version"


def test_grants_over_rest(api_of: ApiOf, ana: User, ben: User, cy: User, endpoint: Endpoint) -> None:
    here = f"/api/v1/endpoints/{endpoint.public_id}/grants"
    api = api_of(ana)
    factories.make_token(ana, name="limited", granted_only=True)
    limited = ApiToken.objects.get(name="limited")
    given = {"permission": "endpoints.invoke"}
    assert api.post(here, {**given, "email": "cy@example.org"}).status_code == 201
    assert api.post(here, {**given, "token": limited.public_id}).json()["kind"] == "token"
    assert [one["label"] for one in api.get(here).json()["data"]] == ["cy@example.org", "limited"]
    assert api_of(cy).get(f"/api/v1/endpoints/{endpoint.public_id}").status_code == 404
    assert api.delete(f"{here}?email=cy@example.org").status_code == 204
    assert len(api.get(here).json()["data"]) == 1
    assert api.post(here, {**given, "email": "nobody@example.org"}).json()["errors"][0]["pointer"] == "/email"
    assert api_of(ben).get(here).status_code == 403


def test_strangers_and_weak_tokens_over_rest(api_of: ApiOf, ana: User, cy: User, endpoint: Endpoint) -> None:
    here = f"/api/v1/endpoints/{endpoint.public_id}"
    stranger = api_of(cy)
    calls = "get patch delete post/start get/revisions post/revisions get/grants post/grants delete/grants"
    for call in calls.split():
        method, _, path = call.partition("/")
        assert getattr(stranger, method)(f"{here}/{path}".rstrip("/")).status_code == 404, call
    assert stranger.get("/api/v1/endpoints").json()["data"] == []
    reader = api_of(ana, ["endpoints:read"])
    assert reader.get(here).status_code == 200
    assert reader.delete(here).status_code == 403
    assert reader.post("/api/v1/endpoints", {"name": "x"}).status_code == 403


def test_stopped_endpoints_leave_the_routes(as_ana: Actor, live: Endpoint) -> None:
    assert routes.build()["endpoints"]["lab/digits"]["workers"]
    stop_endpoint(as_ana, live)
    assert not routes.build()["endpoints"]["lab/digits"]["workers"]
    assert infer_body(0)["inputs"][0]["shape"] == [1, 1, 8, 8]
