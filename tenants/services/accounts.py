"""Whose address is confirmed, and one-time sign-in links: how the first person gets in without a password."""

from __future__ import annotations

import secrets
from datetime import timedelta

from allauth.account.models import EmailAddress
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants import audit, http
from tenants.errors import Conflict, Hidden
from tenants.models import SignInLink, User

LINK_LASTS = timedelta(hours=24)


class LinkUsedUp(Conflict):
    """This sign-in link was used before or has expired. Sign in another way, or have a new link made."""

    status = 410
    code = "link_used_up"


def confirm_address(person: User) -> None:
    """Note that this person's address is theirs: the operator named it, or a mailed link came back from it."""
    address, _made = EmailAddress.objects.get_or_create(
        user=person, email=person.email.lower(), defaults={"primary": True}
    )
    address.set_verified()  # does nothing where somebody else has confirmed the same address


def confirmed_person(email: str) -> User | None:
    """The active person who signs in with this address and has shown that it is theirs."""
    wanted = email.strip().lower()
    return User.objects.filter(
        email__iexact=wanted,
        is_active=True,
        emailaddress__email__iexact=wanted,
        emailaddress__verified=True,
    ).first()


def make_sign_in_link(user: User) -> str:
    """A path that signs this person in once within 24 hours. Only its hash is kept."""
    token = secrets.token_urlsafe(32)
    SignInLink.objects.create(digest=http.digest(token), user=user, expires_at=timezone.now() + LINK_LASTS)
    return reverse("tenants:magic_login", args=[token])


def use_sign_in_link(token: str, *, request_id: str = "", address: str = "") -> User:
    """The person behind the link, which this spends; Hidden if unknown, LinkUsedUp if too late."""
    now = timezone.now()
    with transaction.atomic():
        link = SignInLink.objects.select_related("user").filter(digest=http.digest(token)).first()
        if link is None:
            raise Hidden(_("This sign-in link is not known. Check that all of it was copied."))
        # one UPDATE decides between two who click at the same moment
        spent = SignInLink.objects.filter(pk=link.pk, used_at=None, expires_at__gt=now).update(used_at=now)
        if not spent or not link.user.is_active:
            raise LinkUsedUp
        actor = http.actor_from_user(link.user, request_id=request_id, address=address)
        audit.record(actor, "person.signed_in_by_link", link.user, tenant=actor.tenant)
    return link.user
