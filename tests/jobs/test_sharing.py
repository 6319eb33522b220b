"""One object of any noun is shared with one person or token, over REST and by the dialog of its page."""

from __future__ import annotations

import pytest

from tenants.models import ApiToken
from tenants.roles import GRANTABLE
from tenants.services import grants
from tenants.wording import GRANT_WORDS, grant_words
from tests.architecture.world import build
from tests.factories import make_tenant, make_token, make_user
from tests.jobs.factories_registry import make_model

NOUNS = ("dataset", "job", "model", "endpoint")
MORE = {
    "dataset": "datasets.view",
    "job": "jobs.cancel",
    "model": "models.download",
    "endpoint": "endpoints.invoke",
}


@pytest.fixture
def world(tenant, ana):
    return build(tenant, ana)


@pytest.mark.parametrize("noun", NOUNS)
def test_grants_of_every_noun_over_rest(noun, world, api_of, ana, ben, cy):
    target = world[noun]
    here = f"/api/v1/{noun}s/{target.public_id}/grants"
    api, stranger = api_of(ana), api_of(cy)
    make_token(ana, name="limited", granted_only=True)
    limited = ApiToken.objects.get(name="limited")
    assert api.get(here).json() == {"data": []}
    made = api.post(here, {"permission": MORE[noun], "email": cy.email})
    assert made.status_code == 201, made.content
    assert made.json()["permissions"] == sorted({MORE[noun], f"{noun}s.view"})
    assert api.post(here, {"permission": f"{noun}s.view", "token": limited.public_id}).status_code == 201
    assert [one["label"] for one in api.get(here).json()["data"]] == [cy.email, "limited"]
    assert stranger.get(here).status_code == 404  # a token of Cy's own tenant is not Cy
    assert api.delete(f"{here}?email={cy.email}").status_code == 204
    assert [one["kind"] for one in api.get(here).json()["data"]] == ["token"]
    assert api_of(ben).get(here).status_code == 403
    assert api_of(ben).post(here, {"permission": MORE[noun], "email": cy.email}).status_code == 403


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"permission": "endpoints.invoke", "email": "cy@example.org"}, "/permission"),
        ({"permission": "jobs.submit", "email": "cy@example.org"}, "/permission"),
        ({"email": "cy@example.org"}, "/permission"),
        ({"permission": "jobs.view", "email": "nobody"}, "/email"),
        ({"permission": "jobs.view", "email": "nobody@example.org"}, "/email"),
        ({"permission": "jobs.view"}, "/email"),
        ({"permission": "jobs.view", "email": "cy@example.org", "colour": "red"}, "/colour"),
    ],
)
def test_a_wrong_grant_is_named_by_a_pointer(world, api_of, ana, cy, body, pointer):
    here = f"/api/v1/jobs/{world['job'].public_id}/grants"
    answer = api_of(ana).post(here, body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    both = api_of(ana).delete(f"{here}?email=cy@example.org&token=tok_x")
    assert (both.status_code, both.json()["errors"][0]["code"]) == (422, "one_of")


@pytest.mark.parametrize("noun", NOUNS)
def test_the_dialog_of_every_page_says_in_words_what_a_holder_may_do(noun, world, browser_of, ana, cy):
    page = f"/{noun}s/{world[noun].public_id}"
    anas, there = browser_of(ana), browser_of(cy)
    assert 'data-dialog="share"' in anas.get(page).content.decode()
    refused = anas.post(f"{page}/share", {"email": "nobody@example.org", "permission": MORE[noun]})
    assert refused.status_code == 422
    assert "not the confirmed address" in refused.content.decode()
    assert anas.post(f"{page}/share", {"email": cy.email, "permission": MORE[noun]}).status_code == 302
    shown = anas.get(page).content.decode()
    words = grant_words([MORE[noun]])
    assert f'<span class="small muted"> {words}</span>' in shown
    assert f"{noun}s.view</span>" not in shown  # nobody has to read codes
    guests = there.get(page)
    assert guests.status_code == 200
    assert "Shared with you" in guests.content.decode()
    assert 'data-dialog="share"' not in guests.content.decode()
    anas.post(f"{page}/unshare", {"kind": "person", "holder": cy.email})
    assert there.get(page).status_code == 404


def test_every_grant_has_words_and_every_word_a_grant():
    assert set(GRANT_WORDS) == frozenset().union(*GRANTABLE.values())
    assert grant_words(["jobs.cancel", "jobs.view"]) == "See it and stop it"
    assert grant_words(["jobs.view"]) == "See it, with its log and cost"


def test_who_sees_a_shared_job_is_not_sent_to_a_model_they_may_not_see(as_ana, browser_of, ana, cy, tmp_path):
    page = f"/jobs/{make_model(as_ana, tmp_path).job.public_id}"
    browser_of(ana).post(f"{page}/share", {"email": cy.email, "permission": "jobs.view"})
    guests = browser_of(cy).get(page).content.decode()
    assert "Result" in guests and "Open the report" not in guests and "/clone" not in guests
    assert "Open the report" in browser_of(ana).get(page).content.decode()


@pytest.fixture
def dee(db):
    """Somebody who signed up and belongs to no tenant."""
    return make_user("dee@example.org")


@pytest.mark.parametrize("noun", NOUNS)
def test_who_has_no_tenant_sees_what_is_shared_and_is_not_made_to_make_one(
    noun, world, browser_of, as_ana, dee
):
    there = browser_of(dee)
    for path in ("/", f"/{noun}s/"):
        assert there.get(path).headers.get("Location") == "/tenants/new", "nothing is shared yet"
    grants.share(as_ana, world[noun], permission=f"{noun}s.view", with_email=dee.email)
    page = world[noun].get_absolute_url()
    for path in ("/", f"/{noun}s/"):
        shown = there.get(path)
        assert shown.status_code == 200, path
        text = shown.content.decode()
        assert f'href="{page}"' in text, path
        assert f'<a href="/{noun}s/"' in text, "the navigation leads there"
    assert there.get(page).status_code == 200
    others = [one for one in NOUNS if one != noun]
    assert all(there.get(f"/{one}s/").headers.get("Location") == "/tenants/new" for one in others)
    assert not any(f'<a href="/{one}s/"' in text for one in others)


def test_who_may_only_see_money_finds_what_is_shared_with_them(world, browser_of, as_ana, ana):
    clerk = make_user("bill@example.org", tenant=make_tenant("Third"), role="billing")
    there = browser_of(clerk)
    assert '<a href="/datasets/"' not in there.get("/").content.decode()
    grants.share(as_ana, world["dataset"], permission="datasets.view", with_email=clerk.email)
    assert '<a href="/datasets/"' in there.get("/").content.decode()
    assert world["dataset"].get_absolute_url() in there.get("/datasets/").content.decode()
