"""What the very first start makes, and the words every start ends with. No password is ever made."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tenants.http import actor_from_user
from tenants.models import User
from tenants.roles import SCOPES
from tenants.services import accounts, tenants, tokens

FIRST_TENANT = "Home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """How to get in."""

    email: str
    path: str  # one-time sign-in link
    token: str | None  # only at the first start; later the person makes their own

    def text(self, url: str, gateway_url: str, local: str = "", local_gateway: str = "") -> str:
        """`local` and `local_gateway` are where this machine listens, said where the public names differ."""
        behind = ""
        if (local, local_gateway) not in (("", ""), (url, gateway_url)):
            behind = f"  On this machine: {local} and {local_gateway}\n"
        token = self.token or "$TAUON_TOKEN"
        note = "" if self.token else f"\n    (make a token at {url}/tokens/ and export it as TAUON_TOKEN)"
        return (
            f"\n  Tauon is up at {url}\n  Endpoints answer at {gateway_url}\n"
            f"{behind}\n"
            f"  Sign in once, as {self.email}:\n    {url}{self.path}\n\n"
            f'  First call:\n    curl -H "Authorization: Bearer {token}" {url}/api/v1/jobs{note}\n\n'
            "  Ctrl-C stops everything.\n"
        )


def first_person() -> tuple[User, str | None]:
    """The person the installation begins with: staff, owner of the first tenant. A token only when just made."""
    email = os.environ.get("TAUON_ADMIN_EMAIL", "admin@localhost").lower()
    person = User.objects.filter(email=email).first() or User.objects.create_superuser(email)
    accounts.confirm_address(person)  # whoever starts the installation named it
    if person.memberships.exists():
        return person, None
    tenants.create_tenant(actor_from_user(person), name=FIRST_TENANT)
    person.refresh_from_db()
    _, token = tokens.create_token(
        actor_from_user(person), name="first start", scopes=SCOPES, expires_in_days=90, granted_only=False
    )
    return person, token


def welcome() -> Welcome:
    """Make sure somebody may come in."""
    person, token = first_person()
    return Welcome(email=person.email, path=accounts.make_sign_in_link(person), token=token)
