"""The REST routes of this app: who gets what, pointers for bad input, idempotency, paging, the schema."""

from __future__ import annotations

import pytest
from django.core import mail
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from tenants.http import actor_from_user
from tenants.models import ApiToken, IdempotencyRecord, Invitation, Membership, Tenant
from tenants.services.tenants import create_tenant
from tests.factories import make_token, make_user


def session_of(user):
    client = APIClient()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def member_path(user, tenant, name="api:member-detail"):
    return reverse(name, args=[Membership.objects.get(user=user, tenant=tenant).public_id])


LISTS = ["tenant-list", "member-list", "invitation-list", "token-list", "audit-list"]


@pytest.mark.parametrize("name", LISTS)
def test_nobody_gets_401_problem_json_from_a_list(db, name):
    answer = APIClient().get(reverse(f"api:{name}"))
    assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")
    assert answer.json()["code"] == "not_authenticated"


@pytest.mark.parametrize(
    ("role", "opened"),
    [
        ("owner", set(LISTS)),
        ("admin", set(LISTS)),
        ("member", {"tenant-list", "member-list", "token-list"}),
        ("viewer", {"tenant-list", "member-list"}),
        ("billing", {"tenant-list", "member-list"}),
    ],
)
def test_each_role_opens_its_lists_and_gets_403_from_the_others(tenant, role, opened):
    client = session_of(make_user("somebody@example.org", tenant=tenant, role=role))
    answers = {name: client.get(reverse(f"api:{name}")) for name in LISTS}
    assert {name for name, answer in answers.items() if answer.status_code == 200} == opened
    assert {answer.status_code for name, answer in answers.items() if name not in opened} <= {403}


def test_lists_hold_only_the_tenants_own_rows_and_page_by_cursor(api_of, ana, ben, cy):
    first = api_of(ana).get("/api/v1/members?limit=1").json()
    assert first["has_more"] is True and len(first["data"]) == 1
    second = api_of(ana).get(f"/api/v1/members?limit=1&cursor={first['next_cursor']}").json()
    assert second["has_more"] is False and second["next_cursor"] is None
    assert {row["email"] for row in first["data"] + second["data"]} == {ana.email, ben.email}


def test_a_stranger_gets_404_on_single_objects(api_of, ana, cy, tenant):
    token = ApiToken.objects.get(digest__isnull=False) if make_token(ana) else None
    client = api_of(cy)
    assert client.get(member_path(ana, tenant)).status_code == 404
    assert client.patch(member_path(ana, tenant), {"role": "viewer"}).status_code == 404
    assert client.delete(member_path(ana, tenant)).status_code == 404
    assert client.get(f"/api/v1/tenants/{tenant.public_id}").status_code == 404
    assert client.patch(f"/api/v1/tenants/{tenant.public_id}", {"name": "x"}).status_code == 404
    assert client.get(f"/api/v1/tokens/{token.public_id}").status_code == 404
    assert client.post(f"/api/v1/tokens/{token.public_id}/revoke").status_code == 404


def test_a_colleague_without_the_right_gets_403(api_of, ana, ben, tenant):
    client = api_of(ben)
    make_token(ana, name="hers")
    hers = ApiToken.objects.get(name="hers")
    assert client.patch(member_path(ana, tenant), {"role": "viewer"}).status_code == 403
    assert client.delete(member_path(ana, tenant)).status_code == 403
    assert client.patch(f"/api/v1/tenants/{tenant.public_id}", {"name": "x"}).status_code == 403
    assert client.post("/api/v1/invitations", {"email": "x@example.org", "role": "member"}).status_code == 403
    assert client.post(f"/api/v1/tokens/{hers.public_id}/revoke").status_code == 403


def test_a_token_without_the_scope_gets_403(api_of, ana):
    assert api_of(ana, ["jobs:read"]).get("/api/v1/members").status_code == 403
    assert (
        api_of(ana, ["tenant:read"])
        .post("/api/v1/tokens", {"name": "x", "scopes": ["jobs:read"]})
        .status_code
        == 403
    )


def test_tenants_are_made_renamed_and_switched_by_a_person(ana, tenant, api_of):
    client = session_of(ana)
    made = client.post("/api/v1/tenants", {"name": "Second"})
    assert (made.status_code, made.json()["active"]) == (201, True)
    rows = client.get("/api/v1/tenants").json()["data"]
    assert {row["name"]: row["active"] for row in rows} == {"Second": True, "Lab": False}
    other = f"/api/v1/tenants/{tenant.public_id}"
    assert client.patch(other, {"name": "x"}).status_code == 403  # visible, but not the one we act in
    assert client.post(f"{other}/switch").json()["active"] is True
    assert client.patch(other, {"name": "Renamed"}).json()["name"] == "Renamed"
    assert api_of(ana).post("/api/v1/tenants", {"name": "Third"}).status_code == 403
    assert Tenant.objects.count() == 2


def test_a_token_sees_only_its_own_tenant(api_of, ana):
    session_of(ana).post("/api/v1/tenants", {"name": "Second"})
    rows = api_of(ana).get("/api/v1/tenants").json()["data"]
    assert [row["name"] for row in rows] == ["Lab"]


def test_members_change_role_and_go(api_of, ana, ben, tenant):
    path = member_path(ben, tenant)
    assert api_of(ana).get(path).json()["email"] == ben.email
    assert api_of(ana).patch(path, {"role": "admin"}).json()["role"] == "admin"
    assert api_of(ana).delete(path).status_code == 204
    answer = api_of(ana).delete(member_path(ana, tenant))
    assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")


def test_an_invitation_goes_from_rest_to_membership(api_of, ana, tenant, committed):
    dan = make_user("dan@example.org")
    with committed():
        made = api_of(ana).post("/api/v1/invitations", {"email": "dan@example.org", "role": "member"})
    assert made.status_code == 201 and made.json()["open"] is True
    token = mail.outbox[-1].body.split("/invitations/")[1].split()[0]
    assert token not in made.content.decode()
    joined = session_of(dan).post("/api/v1/invitations/accept", {"token": token})
    assert (joined.status_code, joined.json()["role"]) == (200, "member")
    again = session_of(dan).post("/api/v1/invitations/accept", {"token": token})
    assert (again.status_code, again.json()["code"]) == (410, "invitation_over")


def test_an_invitation_is_read_and_withdrawn(api_of, ana, ben, cy):
    api_of(ana).post("/api/v1/invitations", {"email": "dan@example.org", "role": "member"})
    path = f"/api/v1/invitations/{Invitation.objects.get().public_id}"
    assert api_of(ana).get(path).json()["email"] == "dan@example.org"
    assert [api_of(user).delete(path).status_code for user in (cy, ben, ana)] == [404, 403, 204]


def test_a_token_is_made_used_and_revoked_over_rest(api_of, ana):
    made = api_of(ana).post("/api/v1/tokens", {"name": "ci", "scopes": ["tenant:read"]}).json()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {made['token']}")
    assert client.get("/api/v1/members").status_code == 200
    assert "token" not in api_of(ana).get(f"/api/v1/tokens/{made['id']}").json()
    assert made["expires_at"] is not None
    assert api_of(ana).post(f"/api/v1/tokens/{made['id']}/revoke").json()["usable"] is False
    assert client.get("/api/v1/members").status_code == 401


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"scopes": ["jobs:read"]}, "/name", "required"),
        ({"name": "x", "scopes": []}, "/scopes", "empty"),
        ({"name": "x", "scopes": ["jobs:read", "nonsense"]}, "/scopes/1", "unknown_scope"),
        ({"name": "x", "scopes": "jobs:read"}, "/scopes", "not_a_list"),
        ({"name": "x", "scopes": ["jobs:read"], "expires_in_days": "soon"}, "/expires_in_days", "invalid"),
        ({"name": "x", "scopes": ["jobs:read"], "expires_in_days": -1}, "/expires_in_days", "range"),
        ({"name": "x", "scopes": ["jobs:read"], "expires": 5}, "/expires", "unknown_field"),
        ({"name": "x\0", "scopes": ["jobs:read"]}, "/name", "null_characters_not_allowed"),
    ],
)
def test_bad_input_gets_a_pointer_to_the_field_and_changes_nothing(api_of, ana, body, pointer, code):
    client = api_of(ana)
    answer = client.post("/api/v1/tokens", body)
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    assert [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]] == [(pointer, code)]
    assert answer.json()["request_id"] == answer["X-Request-Id"]
    assert ApiToken.objects.count() == 1  # the client's own


def test_a_body_that_is_no_json_or_no_object_is_told_so(api_of, ana):
    client = api_of(ana)
    broken = client.post("/api/v1/tokens", data="{", content_type="application/json")
    assert (broken.status_code, broken["Content-Type"]) == (400, "application/problem+json")
    assert client.post("/api/v1/tokens", ["x"]).status_code == 422


def test_the_same_idempotency_key_makes_one_token_and_replays_the_answer(api_of, ana):
    client, body = api_of(ana), {"name": "once", "scopes": ["jobs:read"]}
    first = client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"})
    again = client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content and again["Idempotency-Replayed"] == "true"
    assert ApiToken.objects.filter(name="once").count() == 1


def test_an_idempotency_key_is_not_good_for_another_body(api_of, ana):
    client = api_of(ana)
    client.post("/api/v1/tokens", {"name": "a", "scopes": ["jobs:read"]}, headers={"Idempotency-Key": "k1"})
    other = client.post(
        "/api/v1/tokens", {"name": "b", "scopes": ["jobs:read"]}, headers={"Idempotency-Key": "k1"}
    )
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert not ApiToken.objects.filter(name="b").exists()


def test_a_kept_answer_is_not_replayed_to_a_revoked_token(api_of, ana):
    client, body = api_of(ana), {"name": "ci", "scopes": ["jobs:read"]}
    assert client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"}).status_code == 201
    ApiToken.objects.update(revoked_at=timezone.now())
    answer = client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"})
    assert answer.status_code == 401 and b"tau_" not in answer.content


def test_a_kept_answer_is_not_replayed_in_another_tenant(ana):
    client, body = session_of(ana), {"name": "ci", "scopes": ["jobs:read"]}
    assert client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"}).status_code == 201
    create_tenant(actor_from_user(ana), name="Second")  # and there she acts from now on
    answer = client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"})
    assert answer.status_code == 201 and "Idempotency-Replayed" not in answer


def test_an_idempotency_key_still_in_use_gets_409(api_of, ana):
    client, body = api_of(ana), {"name": "a", "scopes": ["jobs:read"]}
    client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"})
    IdempotencyRecord.objects.update(status=None)  # as while the first is being worked on
    answer = client.post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "still_running")


def test_a_refused_request_may_be_mended_under_the_same_key(api_of, ana):
    client = api_of(ana)
    wrong = client.post("/api/v1/tokens", {"name": ""}, headers={"Idempotency-Key": "k1"})
    mended = client.post(
        "/api/v1/tokens", {"name": "a", "scopes": ["jobs:read"]}, headers={"Idempotency-Key": "k1"}
    )
    assert (wrong.status_code, mended.status_code) == (422, 201)


def test_two_people_may_use_the_same_idempotency_key(api_of, ana, ben):
    body = {"name": "a", "scopes": ["jobs:read"]}
    answers = [
        api_of(user).post("/api/v1/tokens", body, headers={"Idempotency-Key": "k1"}) for user in (ana, ben)
    ]
    assert answers[0].json()["token"] != answers[1].json()["token"]


def test_the_schema_describes_every_route_of_this_app(client, db):
    schema = client.get("/api/schema", headers={"Accept": "application/vnd.oai.openapi+json"}).json()
    ours = {path: verbs for path, verbs in schema["paths"].items() if path.split("/")[3] in {
        "tenants", "members", "invitations", "tokens", "audit"}}  # fmt: skip
    assert len(ours) == 12
    for path, verbs in ours.items():
        for verb, operation in verbs.items():
            if verb not in {"get", "post", "patch", "delete"}:
                continue
            assert operation["summary"], path
            answers = operation["responses"]
            assert "204" in answers or any("content" in answer for answer in answers.values()), (path, verb)
    assert "TokenMade" in schema["components"]["schemas"]
