"""Sharing one object with one person or one token."""

from __future__ import annotations

import pytest

from jobs.models import Dataset, Endpoint
from tenants import http, outbox, permissions
from tenants.errors import Forbidden, Hidden, Invalid
from tenants.models import ApiToken, AuditEntry
from tenants.services import accounts, grants
from tests.factories import make_token, make_user


@pytest.fixture
def endpoint(tenant):
    return Endpoint.objects.create(tenant=tenant, name="Digits", slug="digits")


def test_a_stranger_given_one_endpoint_sees_and_calls_it_and_no_other(
    as_ana, as_cy, endpoint, tenant, committed
):
    other = Endpoint.objects.create(tenant=tenant, name="Other", slug="other")
    with pytest.raises(Hidden):
        permissions.require(as_cy, "endpoints.invoke", endpoint)
    with committed():
        made = grants.share(as_ana, endpoint, permission="endpoints.invoke", with_email="CY@example.org")
    assert (made.kind, made.label) == ("person", "cy@example.org")
    assert made.permissions == ("endpoints.invoke", "endpoints.view")
    permissions.require(as_cy, "endpoints.invoke", endpoint)
    with pytest.raises(Forbidden):
        permissions.require(as_cy, "endpoints.stop", endpoint)
    assert list(Endpoint.objects.visible_to(as_cy)) == [endpoint]
    with pytest.raises(Hidden):
        permissions.require(as_cy, "endpoints.invoke", other)
    assert outbox.queued == [("jobs.publish_routes", ())]
    assert AuditEntry.objects.get().details == {"permission": "endpoints.invoke", "with": "cy@example.org"}


def test_a_token_limited_to_shared_objects_reaches_what_it_was_given(as_ana, ana, endpoint):
    plain = make_token(ana, granted_only=True)
    actor = http.actor_from_token(plain)
    with pytest.raises(Hidden):
        permissions.require(actor, "endpoints.invoke", endpoint)
    grants.share(as_ana, endpoint, permission="endpoints.invoke", with_token=ApiToken.objects.get().public_id)
    permissions.require(actor, "endpoints.invoke", endpoint)
    assert [one.kind for one in grants.grants_of(as_ana, endpoint)] == ["token"]


def test_what_was_shared_can_be_taken_back(as_ana, as_cy, cy, endpoint):
    grants.share(as_ana, endpoint, permission="endpoints.invoke", with_email=cy.email)
    grants.unshare(as_ana, endpoint, with_email=cy.email)
    grants.unshare(as_ana, endpoint, with_email=cy.email)
    with pytest.raises(Hidden):
        permissions.require(as_cy, "endpoints.view", endpoint)
    assert grants.grants_of(as_ana, endpoint) == []


def test_only_those_who_may_share_do(as_ben, as_cy, as_ana, cy, endpoint):
    for actor, refusal in ((as_ben, Forbidden), (as_cy, Hidden)):
        for call in (
            lambda a=actor: grants.share(a, endpoint, permission="endpoints.view", with_email=cy.email),
            lambda a=actor: grants.unshare(a, endpoint, with_email=cy.email),
            lambda a=actor: grants.grants_of(a, endpoint),
        ):
            with pytest.raises(refusal):
                call()
    grants.share(as_ana, endpoint, permission="endpoints.view", with_email=cy.email)
    with pytest.raises(Forbidden):  # whoever was let in does not let in others
        grants.share(as_cy, endpoint, permission="endpoints.view", with_email="ben@example.org")


def test_a_dataset_can_be_shared_too(as_ana, as_cy, cy, tenant):
    dataset = Dataset.objects.create(tenant=tenant, name="Digits")
    grants.share(as_ana, dataset, permission="datasets.view", with_email=cy.email)
    assert list(Dataset.objects.visible_to(as_cy)) == [dataset]


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"permission": "endpoints.stop", "with_email": "cy@example.org"}, "/permission"),
        ({"permission": "endpoints.invoke", "with_email": "nobody@example.org"}, "/email"),
        ({"permission": "endpoints.invoke"}, "/email"),
        ({"permission": "endpoints.invoke", "with_token": "tok_none"}, "/token"),
    ],
)
def test_what_is_wrong_with_a_grant_is_named_at_its_field(as_ana, cy, endpoint, options, pointer):
    with pytest.raises(Invalid) as refusal:
        grants.share(as_ana, endpoint, **options)
    assert refusal.value.faults[0].pointer == pointer


def test_a_token_of_another_tenant_is_not_known_here(as_ana, cy, endpoint):
    make_token(cy)
    with pytest.raises(Invalid):
        grants.share(as_ana, endpoint, permission="endpoints.view", with_token=ApiToken.objects.get())


def test_an_object_is_shared_with_a_confirmed_address_only(as_ana, as_cy, endpoint):
    dan = make_user("dan@example.org", confirmed=False)
    said = {}
    for email in ("dan@example.org", "nobody@example.org"):
        with pytest.raises(Invalid) as refusal:
            grants.share(as_ana, endpoint, permission="endpoints.view", with_email=email)
        fault = refusal.value.faults[0]
        said[email] = (fault.pointer, fault.code, fault.detail.replace(email, "…"))
    assert said["dan@example.org"] == said["nobody@example.org"]  # it does not tell who has an account
    assert "confirm" in fault.detail
    accounts.confirm_address(dan)
    grants.share(as_ana, endpoint, permission="endpoints.view", with_email="dan@example.org")


def test_an_address_that_somebody_else_confirmed_opens_nothing(as_ana, endpoint):
    dan, eve = make_user("dan@example.org", confirmed=False), make_user("eve@example.org")
    eve.emailaddress_set.create(email="dan@example.org", verified=True)
    accounts.confirm_address(dan)
    with pytest.raises(Invalid):
        grants.share(as_ana, endpoint, permission="endpoints.view", with_email="dan@example.org")


def test_taking_back_does_not_tell_who_has_an_account(as_ana, cy, endpoint):
    for email in (cy.email, "nobody@example.org"):
        grants.unshare(as_ana, endpoint, with_email=email)
    assert not AuditEntry.objects.exists()
