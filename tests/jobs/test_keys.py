"""Keys of endpoints: who makes and ends them, what they open, and how the gateway holds them to their limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse

from jobs import routes
from jobs.models import Endpoint, EndpointKey
from jobs.services.keys import create_key, revoke_key
from tenants import http
from tenants.actor import Actor
from tenants.errors import Forbidden, Hidden, Invalid
from tenants.http import actor_from_user
from tenants.models import ApiToken, AuditEntry, Tenant, User
from tests import factories
from tests.factories import ApiOf, BrowserOf
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import make_endpoint, make_model_version, until
from tests.jobs.gateway_house import LAB, House, token

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def endpoint(as_ana: Actor, tenant: Tenant, bundle: Path) -> Endpoint:
    return make_endpoint(as_ana, make_model_version(tenant, bundle=bundle), slug="digits")


def test_a_key_opens_its_endpoint_and_nothing_else(
    as_ben: Actor, endpoint: Endpoint, tenant: Tenant, bundle: Path, as_ana: Actor
) -> None:
    other = make_endpoint(as_ana, make_model_version(tenant, number=2, bundle=bundle), slug="other")
    key, plain = create_key(
        as_ben,
        endpoint,
        name="shop",
        expires_in_days=30,
        per_minute=60,
        per_day=1000,
        networks=["203.0.113.7"],
    )
    known = routes.build()["tokens"][http.digest(plain)]
    assert known["granted"] == [endpoint.public_id] and not known["whole_tenant"]
    assert (known["per_minute"], known["per_day"], known["networks"]) == (60, 1000, ["203.0.113.7/32"])
    assert known["expires"] == key.token.expires_at.timestamp()
    assert other.public_id not in known["granted"]
    assert AuditEntry.objects.filter(action="endpoint.key_created").exists()
    with_key = Client(headers={"Authorization": f"Bearer {plain}"})
    for address in ("jobs", "endpoints", f"endpoints/{endpoint.public_id}", "tokens"):
        # the console's own API is closed to it
        assert with_key.get(f"/api/v1/{address}").status_code in (403, 404), address


def test_revoking_takes_it_out_of_the_routes_and_twice_is_as_good_as_once(
    as_ana: Actor, as_ben: Actor, endpoint: Endpoint
) -> None:
    key, plain = create_key(as_ana, endpoint, name="shop", expires_in_days=None)
    other, other_plain = create_key(as_ana, endpoint, name="app", expires_in_days=None)
    revoke_key(as_ben, key)  # a colleague who may publish here may end it
    revoke_key(as_ben, key)
    tokens = routes.build()["tokens"]
    assert http.digest(plain) not in tokens and http.digest(other_plain) in tokens
    assert AuditEntry.objects.filter(action="endpoint.key_revoked").count() == 1
    assert other.token.is_usable


def test_strangers_and_viewers_make_none(as_cy: Actor, tenant: Tenant, endpoint: Endpoint) -> None:
    viewer = factories.make_user("vera@example.org", tenant=tenant, role="viewer")
    with pytest.raises(Hidden):
        create_key(as_cy, endpoint, name="mine", expires_in_days=None)
    with pytest.raises(Forbidden):
        create_key(actor_from_user(viewer), endpoint, name="mine", expires_in_days=None)
    assert not EndpointKey.objects.exists() and not ApiToken.objects.exists()


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"per_minute": 0}, "/per_minute"),
        ({"per_day": -1}, "/per_day"),
        ({"networks": ["203.0.113.0/24", "here"]}, "/networks/1"),
        ({"networks": ["10.0.0.1"] * 51}, "/networks"),
        ({"name": " "}, "/name"),
    ],
)
def test_what_is_wrong_with_a_key_is_named(
    as_ana: Actor, endpoint: Endpoint, given: dict, pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        create_key(as_ana, endpoint, **{"name": "shop", "expires_in_days": None, **given})
    assert refused.value.faults[0].pointer == pointer
    assert not ApiToken.objects.exists()


def test_the_api_makes_lists_and_revokes(ben: User, endpoint: Endpoint, api_of: ApiOf) -> None:
    api = api_of(ben)
    address = f"/api/v1/endpoints/{endpoint.public_id}/keys"
    made = api.post(
        address, {"name": "shop", "expires_in_days": 7, "networks": ["::1"]}, content_type="application/json"
    )
    assert made.status_code == 201, made.json()
    assert made.json()["key"].startswith("tau_") and made["Cache-Control"] == "no-store"
    (listed,) = api.get(address).json()["data"]
    assert "key" not in listed and listed["networks"] == ["::1/128"]
    ended = api.delete(f"{address}/{listed['id']}")
    assert ended.status_code == 200 and ended.json()["revoked_at"]
    assert http.digest(made.json()["key"]) not in routes.build()["tokens"]


def test_the_page_shows_a_key_once_and_revokes_it(
    ana: User, endpoint: Endpoint, browser_of: BrowserOf
) -> None:
    browser = browser_of(ana)
    page = reverse("jobs:endpoint_keys", args=[endpoint.public_id])
    assert "No key yet" in browser.get(page).content.decode()
    wrong = browser.post(page, {"name": "shop", "expires_in_days": "30", "networks": "nowhere"})
    assert wrong.status_code == 422 and "nowhere is no address" in wrong.content.decode()
    made = browser.post(
        page, {"name": "shop", "expires_in_days": "30", "per_minute": "5", "networks": "10.0.0.0/8\n::1"}
    )
    assert made.status_code == 201 and "tau_" in made.content.decode()
    key = EndpointKey.objects.get()
    assert (key.per_minute, key.networks) == (5, ["10.0.0.0/8", "::1/128"])
    again = browser.get(page).content.decode()
    assert "shop" in again and key.token.hint in again and "5 a minute" in again
    done = browser.post(reverse("jobs:endpoint_key_revoke", args=[endpoint.public_id, key.public_id]))
    assert done.status_code == 302
    key.token.refresh_from_db()
    assert key.token.revoked_at


# -- at the gateway ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two gateways before one worker: limits hold for both together."""
    folder = tmp_path_factory.mktemp("w")
    house = House(bundle)
    with make.worker(bundle, folder / "k"):
        house.route(workers=[str(folder / "k" / "s")])
        house.announce(**KEYS)
        with make.gateway(folder) as one, make.gateway(folder) as two:
            house.url = one.url
            house.urls = (one.url, two.url)  # type: ignore[attr-defined]
            for url in house.urls:  # type: ignore[attr-defined]
                house.url = url
                until(lambda: house.get("/t/lab/digits/v2/health/ready").status_code == 200, what="routes")
            yield house
    make.forget_routes()


def key(name: str, **more: object) -> dict:
    return token(tenant=LAB, whole=False, granted=("ep_digits",), id=f"tok_{name}", **more)


KEYS = {
    "minute": key("minute", per_minute=10),
    "day": key("day", per_day=7),
    "here": key("here", networks=["127.0.0.0/8"]),
    "elsewhere": key("elsewhere", networks=["203.0.113.0/24", "2001:db8::/32"]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("who", "most"), [("minute", 10), ("day", 7)])
def test_a_keys_own_limit_holds_over_all_gateways(gated: House, who: str, most: int) -> None:
    began = time.monotonic()
    statuses = []
    for turn in range(30):
        gated.url = gated.urls[turn % 2]  # type: ignore[attr-defined]
        answer = gated.post(who)
        statuses.append(answer.status_code)
    grown = int((time.monotonic() - began) / 6) + 1 if who == "minute" else 0  # a bucket fills while we ask
    assert most <= statuses.count(200) <= most + grown
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    assert "day" in answer.headers["ratelimit"] or who == "minute"


@pytest.mark.slow
def test_a_key_with_addresses_works_from_those_alone(gated: House) -> None:
    assert gated.post("here").status_code == 200
    refused = gated.post("elsewhere")
    assert (refused.status_code, refused.json()["code"]) == (403, "address_not_allowed")


@pytest.mark.slow
def test_a_revoked_key_is_refused_within_a_second_by_every_gateway(gated: House) -> None:
    assert gated.post("here").status_code == 200
    gated.announce(**{**KEYS, "here": None})
    began = time.monotonic()
    for url in gated.urls:  # type: ignore[attr-defined]
        gated.url = url
        until(lambda: gated.post("here").status_code == 401, 3, "the revocation")
    assert time.monotonic() - began < 1
    gated.announce(**KEYS)
