"""The shell, the overview, the palette and health."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from tenants import audit
from tenants.actor import Actor
from tenants.models import ApiToken, Tenant, User
from tests import factories
from tests.factories import BrowserOf


def test_health_live_answers_without_sign_in(client: Client, db: None) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}


def test_health_ready_checks_the_database_and_redis(client: Client, db: None) -> None:
    body = client.get("/health/ready").json()
    assert body["checks"] == {"database": "ok", "redis": "ok"}


def test_health_ready_names_the_server_that_does_not_answer(client: Client, db: None, settings) -> None:
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["redis"] == "does not answer"


def test_somebody_signed_out_is_asked_to_sign_in(client: Client, db: None) -> None:
    answer = client.get("/")
    assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")


def test_a_person_without_a_tenant_is_taken_to_make_one(browser_of: BrowserOf, db: None) -> None:
    answer = browser_of(factories.make_user("dee@example.org")).get("/")
    assert answer.status_code == 302 and answer["Location"] == "/tenants/new"


def test_a_new_tenant_is_welcomed_with_the_first_step(browser_of: BrowserOf, ana: User) -> None:
    page = browser_of(ana).get("/").content.decode()
    assert "Welcome to Lab" in page and "0/5" in page


def test_a_step_ticks_itself_when_it_was_done(browser_of: BrowserOf, ana: User) -> None:
    factories.make_token(ana)
    page = browser_of(ana).get("/").content.decode()
    assert ApiToken.objects.count() == 1
    assert "1/5" in page and page.count("data-done") == 1


def test_the_navigation_holds_what_the_role_may_open(
    browser_of: BrowserOf, tenant: Tenant, ana: User
) -> None:
    viewer = factories.make_user("eve@example.org", tenant=tenant, role="viewer")
    shown = {who.email: nav_of(browser_of(who).get("/").content.decode()) for who in (ana, viewer)}
    assert "Audit log" in shown[ana.email] and "API tokens" in shown[ana.email]
    assert "Audit log" not in shown[viewer.email] and "API tokens" not in shown[viewer.email]
    assert "Reports" not in shown[ana.email]


def test_reports_are_for_staff_of_the_installation(browser_of: BrowserOf, ana: User) -> None:
    ana.is_staff = True
    ana.save()
    assert "Reports" in nav_of(browser_of(ana).get("/").content.decode())


def test_the_present_page_is_marked_in_the_navigation(browser_of: BrowserOf, ana: User) -> None:
    page = browser_of(ana).get("/").content.decode()
    assert re.search(r'<a href="/" aria-current="page">', page)


def test_recent_activity_is_the_tenants_own(
    browser_of: BrowserOf, ana: User, cy: User, as_ana: Actor, as_cy: Actor
) -> None:
    audit.record(as_ana, "tenant.renamed", as_ana.tenant, before="a", after="b")
    audit.record(as_cy, "tenant.renamed", as_cy.tenant, before="a", after="b")
    factories.make_token(ana)
    page = browser_of(ana).get("/").content.decode()
    assert "renamed the tenant" in page
    assert "cy@example.org" not in page and "Elsewhere" not in page


def test_a_member_sees_only_what_they_did_themselves(
    browser_of: BrowserOf, ana: User, ben: User, as_ana: Actor
) -> None:
    audit.record(as_ana, "tenant.renamed", as_ana.tenant, before="a", after="b")
    assert "renamed the tenant" not in browser_of(ben).get("/").content.decode()


def test_the_palette_finds_pages_and_actions(browser_of: BrowserOf, ana: User) -> None:
    page = browser_of(ana).get("/search?q=audit", headers={"HX-Request": "true"}).content.decode()
    assert "Audit log" in page and "<html" not in page


def test_the_palette_offers_only_what_the_role_may_do(browser_of: BrowserOf, tenant: Tenant) -> None:
    viewer = factories.make_user("eve@example.org", tenant=tenant, role="viewer")
    page = browser_of(viewer).get("/search?q=", headers={"HX-Request": "true"}).content.decode()
    assert "Invite a colleague" not in page and "Audit log" not in page


def test_search_is_a_page_where_there_is_no_script(browser_of: BrowserOf, ana: User) -> None:
    page = browser_of(ana).get("/search?q=<b>").content.decode()
    assert "<html" in page and "“&lt;b&gt;”" in page


def test_the_theme_of_the_cookie_is_in_the_first_byte(browser_of: BrowserOf, ana: User) -> None:
    client = browser_of(ana)
    client.cookies["theme"] = "dark"
    assert 'data-theme="dark"' in client.get("/").content.decode()
    client.cookies["theme"] = '"><script>'
    assert 'data-theme="auto"' in client.get("/").content.decode()


def test_the_style_page_shows_every_component(browser_of: BrowserOf, ana: User) -> None:
    assert browser_of(ana).get("/style").status_code == 200


def test_the_style_page_is_hidden_in_production(browser_of: BrowserOf, ana: User, settings) -> None:
    settings.TESTING = settings.DEBUG = False
    assert browser_of(ana).get("/style").status_code == 404


@pytest.mark.parametrize("path", ["login/", "signup/", "password/reset/"])
def test_signed_out_pages_stand_in_the_house(client: Client, db: None, path: str) -> None:
    page = client.get(f"/accounts/{path}").content.decode()
    assert 'class="plain-card"' in page and 'class="field"' in page


def test_account_pages_stand_in_the_shell(browser_of: BrowserOf, ana: User) -> None:
    page = browser_of(ana).get("/accounts/email/").content.decode()
    assert 'class="shell"' in page and "Add address" in page


def test_a_missing_page_says_so_in_the_house_style(browser_of: BrowserOf, ana: User) -> None:
    answer = browser_of(ana).get("/nothing/here")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()


def nav_of(page: str) -> str:
    return page.split('<nav class="nav"')[1].split("</nav>")[0]


def test_a_stale_form_is_told_so_in_the_house_style(ana: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ana)
    answer = client.post("/accounts/logout/")
    assert answer.status_code == 403
    assert "This form is too old" in answer.content.decode()


def test_mails_of_accounts_speak_as_tauon(client, db, mailoutbox, settings):
    settings.BASE_URL = "https://tauon.example.org"
    fields = {
        "email": "dan@example.org",
        "password1": "hazel wren 42 moss",
        "password2": "hazel wren 42 moss",
    }
    assert client.post("/accounts/signup/", fields, headers={"host": "127.0.0.1"}).status_code == 302
    sent = mailoutbox[-1]
    assert sent.subject.startswith("[Tauon] ")
    assert "Hello from Tauon" in sent.body and "tauon.example.org" in sent.body
    assert "Hello from 127" not in sent.body


def test_headings_of_account_pages_are_written_like_all_others(browser_of, ana, client, db):
    from django.utils import translation

    with translation.override("en"):
        assert translation.gettext("Confirm Access") == "Confirm access"
    page = browser_of(ana).get("/accounts/reauthenticate/", follow=True).content.decode()
    assert "Confirm Access" not in page
    signup = client.get("/accounts/password/reset/key/1-x/", follow=True).content.decode()
    assert "Bad Token" not in signup and "Bad token" in signup


def test_a_browser_that_asks_for_a_picture_gets_one(client):
    answer = client.get("/favicon.ico")
    assert answer.status_code == 302 and answer["Location"].endswith(".svg")
