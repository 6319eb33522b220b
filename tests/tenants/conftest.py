"""More of the cast: Ada helps run the tenant, Vic looks, Bo pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import pytest
from django.core import mail
from django.db import connection

from tenants.actor import Actor
from tenants.http import actor_from_user
from tenants.models import Tenant, User
from tenants.services import invitations
from tests import factories


@pytest.fixture
def ada(tenant: Tenant) -> User:
    return factories.make_user("ada@example.org", tenant=tenant, role="admin")


@pytest.fixture
def vic(tenant: Tenant) -> User:
    return factories.make_user("vic@example.org", tenant=tenant, role="viewer")


@pytest.fixture
def bo(tenant: Tenant) -> User:
    return factories.make_user("bo@example.org", tenant=tenant, role="billing")


@pytest.fixture
def as_ada(ada: User) -> Actor:
    return actor_from_user(ada)


@pytest.fixture
def committed(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`with committed():` lets mail and messages out as a commit would."""
    capture = request.getfixturevalue("django_capture_on_commit_callbacks")

    @contextmanager
    def block() -> Iterator[None]:
        with capture(execute=True):
            yield

    return block


@pytest.fixture
def invite(committed: Callable[..., Any]) -> Callable[..., str]:
    """invite(as_ana, "dan@example.org") returns the token of the link that was mailed."""

    def send(actor: Actor, email: str, role: str = "member") -> str:
        with committed():
            invitations.invite_member(actor, email=email, role=role)
        return token_in(mail.outbox[-1].body)

    return send


def token_in(body: str) -> str:
    """The last part of the link in a mail."""
    line = next(line for line in body.splitlines() if "/invitations/" in line)
    return line.rsplit("/", 1)[1].strip()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls in threads that start together; the result is what each returned or raised."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        try:
            barrier.wait(timeout=10)
            return call()
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
