"""The cast, and what every test may lean on.

Ana owns the tenant, Ben belongs to it as a member, Cy is a stranger who owns another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client, override_settings
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer
from rest_framework.test import APIClient

from console.celery import app as celery_app
from tenants import outbox
from tenants.actor import Actor
from tenants.http import actor_from_user
from tenants.models import Tenant, User
from tests import factories
from tests.browser import open_browser, open_page


@pytest.fixture(scope="session", autouse=True)
def known_tasks() -> None:
    """A drained outbox must find its tasks, as a worker does at its start."""
    celery_app.loader.import_default_modules()


@pytest.fixture(autouse=True)
def clean_outbox() -> Iterator[None]:
    """No message of one test reaches the next."""
    outbox.queued.clear()
    outbox.nudged.clear()
    yield
    outbox.queued.clear()
    outbox.nudged.clear()


@pytest.fixture(autouse=True)
def folders_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Storage, runs, replicas and usage logs of a test are its own."""
    for name in ("RUNS_DIR", "REPLICAS_DIR", "USAGE_DIR", "REQUESTS_DIR"):
        folder = tmp_path / name.split("_")[0].lower()
        folder.mkdir()
        monkeypatch.setattr(settings, name, folder)
    storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": tmp_path / "storage", "file_permissions_mode": 0o600},
    }
    with override_settings(STORAGES={**settings.STORAGES, "default": storage}):
        yield


@pytest.fixture
def fresh_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def tenant(db: None) -> Tenant:
    return factories.make_tenant("Lab")


@pytest.fixture
def ana(tenant: Tenant) -> User:
    return factories.make_user("ana@example.org", tenant=tenant, role="owner")


@pytest.fixture
def ben(tenant: Tenant) -> User:
    return factories.make_user("ben@example.org", tenant=tenant, role="member")


@pytest.fixture
def cy(db: None) -> User:
    return factories.make_user("cy@example.org", tenant=factories.make_tenant("Elsewhere"), role="owner")


@pytest.fixture
def as_ana(ana: User) -> Actor:
    return actor_from_user(ana)


@pytest.fixture
def as_ben(ben: User) -> Actor:
    return actor_from_user(ben)


@pytest.fixture
def as_cy(cy: User) -> Actor:
    return actor_from_user(cy)


@pytest.fixture
def browser_of() -> factories.BrowserOf:
    """browser_of(ana) is a signed-in Django test client."""

    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    return sign_in


@pytest.fixture
def api_of() -> factories.ApiOf:
    """api_of(ana) is an API client with a fresh token of hers, all scopes unless told."""

    def with_token(user: User, scopes: list[str] | None = None) -> APIClient:
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {factories.make_token(user, scopes=scopes)}")
        return client

    return with_token


@pytest.fixture
def page(live_server: LiveServer, ana: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A real Chromium in which Ana is signed in, at a server of this test."""
    # Playwright runs a loop in this thread, and Django takes that for a server that must not block
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    client = Client()
    client.force_login(ana, backend="django.contrib.auth.backends.ModelBackend")
    with open_browser() as browser, open_page(browser, live_server.url) as opened:
        opened.context.add_cookies(
            [
                {"name": name, "value": one.value, "url": live_server.url}
                for name, one in client.cookies.items()
            ]
        )
        yield opened
