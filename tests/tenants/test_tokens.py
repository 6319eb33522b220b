"""API tokens: shown once, never above their maker, gone at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from jobs.models import Endpoint
from tenants import http, outbox, permissions
from tenants.errors import Forbidden, Hidden, Invalid, NotSignedIn
from tenants.http import actor_from_user
from tenants.models import ApiToken, AuditEntry
from tenants.roles import SCOPES
from tenants.services import tokens as service
from tests.factories import make_token


def make(actor, **options):
    wanted = {"name": "ci", "scopes": ["jobs:read"], "expires_in_days": 30, "granted_only": False}
    return service.create_token(actor, **{**wanted, **options})


def bearer(token):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def test_a_token_acts_with_its_scopes_and_is_kept_only_as_a_hash(as_ben, tenant, committed):
    with committed():
        token, plain = make(as_ben)
    actor = http.actor_from_token(plain)
    assert (actor.tenant, actor.may("jobs.view"), actor.may("jobs.submit")) == (tenant, True, False)
    assert plain not in str(list(ApiToken.objects.values()))
    assert plain not in str(list(AuditEntry.objects.values()))
    assert token.hint == f"{plain[:6]}…{plain[-4:]}"
    assert outbox.queued == [("jobs.publish_routes", ())]


def test_a_token_carries_no_scope_its_maker_does_not_hold(as_ben):
    with pytest.raises(Invalid) as refusal:
        make(as_ben, scopes=["jobs:read", "billing:write"])
    assert (refusal.value.faults[0].pointer, refusal.value.faults[0].code) == ("/scopes/1", "beyond_reach")


def test_a_member_reaches_less_than_an_owner(as_ben, as_ana):
    assert set(service.scopes_within_reach(as_ana)) == set(SCOPES)
    assert "billing:write" not in service.scopes_within_reach(as_ben)


def test_a_token_makes_no_token_wider_or_longer_than_itself(ana):
    plain = make_token(
        ana, scopes=["tenant:write", "jobs:read"], expires_at=timezone.now() + timedelta(days=2)
    )
    parent = http.actor_from_token(plain)
    with pytest.raises(Invalid):
        make(parent, scopes=["jobs:write"])
    child, _plain = make(parent, scopes=["jobs:read"], expires_in_days=None)
    assert child.expires_at == parent.token.expires_at


def test_a_token_limited_to_shared_objects_makes_no_token(ana):
    parent = http.actor_from_token(make_token(ana, granted_only=True))
    with pytest.raises(Forbidden):
        make(parent)


def test_viewers_make_no_tokens(vic):
    with pytest.raises(Forbidden):
        make(actor_from_user(vic))


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"name": " "}, "/name"),
        ({"name": "x" * 81}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["jobs:fly"]}, "/scopes/0"),
        ({"expires_in_days": 0}, "/expires_in_days"),
        ({"expires_in_days": 99999}, "/expires_in_days"),
    ],
)
def test_what_is_wrong_with_a_token_is_named_at_its_field(as_ana, wrong, pointer):
    with pytest.raises(Invalid) as refusal:
        make(as_ana, **wrong)
    assert [fault.pointer for fault in refusal.value.faults] == [pointer]
    assert not ApiToken.objects.exists()


def test_an_expired_or_revoked_token_gets_401_problem_json(as_ana, ana):
    token, plain = make(as_ana, scopes=["tenant:read"])
    client = bearer(plain)
    assert client.get("/api/v1/members").status_code == 200
    service.revoke_token(as_ana, token)
    answer = client.get("/api/v1/members")
    assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")
    assert answer["WWW-Authenticate"].startswith("Bearer")
    expired = make_token(ana, expires_at=timezone.now() - timedelta(seconds=1))
    assert bearer(expired).get("/api/v1/members").status_code == 401


def test_revoking_twice_is_as_good_as_once(as_ana):
    token, _plain = make(as_ana)
    service.revoke_token(as_ana, token)
    service.revoke_token(as_ana, token)
    assert AuditEntry.objects.filter(action="token.revoked").count() == 1


def test_members_revoke_their_own_tokens_admins_all_strangers_none(as_ben, as_ana, as_ada, as_cy):
    mine, _plain = make(as_ben)
    hers, _plain = make(as_ana)
    assert list(ApiToken.objects.managed_by(as_ben)) == [mine]
    assert ApiToken.objects.managed_by(as_ada).count() == 2
    with pytest.raises(Forbidden):
        service.revoke_token(as_ben, hers)
    with pytest.raises(Hidden):
        service.revoke_token(as_cy, hers)
    service.revoke_token(as_ben, mine)
    service.revoke_token(as_ada, hers)
    assert not ApiToken.objects.usable().exists()


def test_a_revoked_token_takes_its_grants_along(as_ana, tenant):
    token, plain = make(as_ana, scopes=["endpoints:read"], granted_only=True)
    endpoint = Endpoint.objects.create(tenant=tenant, name="Digits", slug="digits")
    permissions.grant("endpoints.invoke", endpoint, to=token)
    assert Endpoint.objects.visible_to(http.actor_from_token(plain)).get() == endpoint
    service.revoke_token(as_ana, token)
    assert permissions.grants(endpoint) == []


def test_the_page_shows_a_new_token_once_with_commands(browser_of, ana):
    browser = browser_of(ana)
    fields = {"name": "laptop", "scopes": ["jobs:read", "endpoints:invoke"], "expires_in_days": "90"}
    page = browser.post(reverse("tenants:token_new"), fields)
    text = page.content.decode()
    token = ApiToken.objects.get()
    plain = next(word for word in text.split('"') if word.startswith("tau_"))
    assert page.status_code == 201 and "no-store" in page["Cache-Control"]
    assert http.digest(plain) == token.digest
    assert f"export TAUON_TOKEN={plain}" in text and "/api/v1/jobs" in text
    listed = browser.get(reverse("tenants:token_list")).content.decode()
    assert token.hint in listed and plain not in listed


def test_the_page_says_what_is_wrong_and_makes_nothing(browser_of, ben):
    page = browser_of(ben).post(reverse("tenants:token_new"), {"name": "", "scopes": ["billing:write"]})
    assert page.status_code == 422
    assert not ApiToken.objects.exists()


def test_the_revoke_button_ends_a_token(browser_of, ben, ana, cy):
    token, _plain = make(actor_from_user(ben))
    path = reverse("tenants:token_revoke", args=[token.public_id])
    assert browser_of(cy).post(path).status_code == 404
    assert browser_of(ben).get(path).status_code == 405
    assert browser_of(ben).post(path).status_code == 302
    assert not ApiToken.objects.get().is_usable


def test_revoking_a_token_revokes_all_it_made(as_ana, as_ben):
    stolen, plain = make(as_ana, scopes=["tenant:write", "jobs:read"])
    child, plain_child = make(http.actor_from_token(plain), scopes=["tenant:write", "jobs:read"])
    _grandchild, plain_grandchild = make(http.actor_from_token(plain_child))
    other, plain_other = make(as_ana)
    thief = http.actor_from_token(plain)
    service.revoke_token(as_ana, stolen)
    assert [http.actor_from_token(one) for one in (plain, plain_child, plain_grandchild)] == [None] * 3
    assert http.actor_from_token(plain_other).token == other
    assert AuditEntry.objects.filter(action="token.revoked", details__made_by=child.public_id).exists()
    with pytest.raises(NotSignedIn):
        make(thief)  # a call that was let in a moment before
