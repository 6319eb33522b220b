"""Invitations: bound to the address, single use, hashed, with an expiry and a ceiling."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import mail
from django.urls import reverse
from django.utils import timezone

from tenants import http
from tenants.actor import NOBODY
from tenants.errors import Forbidden, Hidden, Invalid, NotSignedIn
from tenants.http import actor_from_user
from tenants.models import AuditEntry, Invitation, Membership, User
from tenants.services import accounts, tenants
from tenants.services import invitations as service
from tests.factories import make_token, make_user
from tests.tenants.conftest import at_once, token_in


@pytest.fixture
def dan(db):
    return make_user("dan@example.org")


def test_an_invited_person_joins_with_the_role_they_were_given(as_ana, dan, tenant, invite):
    token = invite(as_ana, "Dan@Example.org", "viewer")
    membership = service.accept_invitation(actor_from_user(dan), token)
    assert (membership.tenant, membership.user, membership.role) == (tenant, dan, "viewer")
    assert User.objects.get(pk=dan.pk).active_tenant == tenant
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"member.invited", "member.joined"}


def test_the_mailed_link_confirms_the_address_of_who_uses_it(as_ana, invite):
    dan = make_user("dan@example.org", confirmed=False)
    assert accounts.confirmed_person("dan@example.org") is None
    service.accept_invitation(actor_from_user(dan), invite(as_ana, "dan@example.org"))
    assert accounts.confirmed_person("Dan@example.org") == dan


def test_the_mail_says_who_invites_where_and_the_link_is_not_kept(as_ana, invite, tenant):
    token = invite(as_ana, "dan@example.org")
    sent = mail.outbox[-1]
    assert sent.to == ["dan@example.org"]
    assert "ana@example.org" in sent.body and tenant.name in sent.subject
    kept = Invitation.objects.get()
    assert token not in str(vars(kept)) and kept.digest == http.digest(token)


def test_nothing_is_mailed_if_the_change_did_not_happen(as_ben, as_ana, ben, committed):
    with pytest.raises(Forbidden), committed():
        service.invite_member(as_ben, email="dan@example.org", role="member")
    with pytest.raises(Invalid), committed():
        service.invite_member(as_ana, email="BEN@example.org", role="member")
    assert mail.outbox == [] and not Invitation.objects.exists()


def test_an_invitation_does_not_open_for_another_address(as_ana, as_cy, cy, invite, tenant):
    token = invite(as_ana, "dan@example.org")
    with pytest.raises(Forbidden, match=r"dan@example\.org"):
        service.accept_invitation(as_cy, token)
    assert not Membership.objects.filter(tenant=tenant, user=cy).exists()
    assert Invitation.objects.get().is_open


def test_an_invitation_works_once(as_ana, dan, invite, tenant):
    token = invite(as_ana, "dan@example.org")
    service.accept_invitation(actor_from_user(dan), token)
    Membership.objects.get(user=dan, tenant=tenant).delete()
    with pytest.raises(service.InvitationOver):
        service.accept_invitation(actor_from_user(dan), token)


def test_an_invitation_expires_and_then_makes_room_for_another(as_ana, dan, invite):
    token = invite(as_ana, "dan@example.org")
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(service.InvitationOver):
        service.accept_invitation(actor_from_user(dan), token)
    service.accept_invitation(actor_from_user(dan), invite(as_ana, "dan@example.org"))


def test_a_withdrawn_invitation_does_not_open(as_ana, dan, invite):
    token = invite(as_ana, "dan@example.org")
    service.revoke_invitation(as_ana, Invitation.objects.get())
    with pytest.raises(service.InvitationOver):
        service.accept_invitation(actor_from_user(dan), token)
    with pytest.raises(service.InvitationOver):
        service.revoke_invitation(as_ana, Invitation.objects.get())


def membership_of(user, tenant):
    return Membership.objects.get(user=user, tenant=tenant)


def test_invitations_of_a_removed_admin_open_no_door(as_ana, ada, as_ada, dan, tenant, invite):
    token, anas = invite(as_ada, "dan@example.org"), invite(as_ana, "eve@example.org")
    tenants.remove_member(as_ana, membership_of(ada, tenant))
    with pytest.raises(service.InvitationOver):
        service.accept_invitation(actor_from_user(dan), token)
    assert AuditEntry.objects.filter(action="invitation.revoked").count() == 1
    invite(as_ana, "dan@example.org")  # and they are not in the way of a new one
    service.accept_invitation(actor_from_user(make_user("eve@example.org")), anas)


def test_a_demotion_ends_the_invitations_that_are_now_above_it(as_ana, ana, dan, tenant, invite):
    zoe = make_user("zoe@example.org", tenant=tenant, role="owner")
    as_zoe = actor_from_user(zoe)
    owner, member = invite(as_zoe, "dan@example.org", "owner"), invite(as_zoe, "eve@example.org", "member")
    tenants.change_role(as_ana, membership_of(zoe, tenant), role="admin")
    assert [one.email for one in Invitation.objects.exclude(revoked_at=None)] == ["dan@example.org"]
    with pytest.raises(service.InvitationOver):
        service.accept_invitation(actor_from_user(dan), owner)
    service.accept_invitation(actor_from_user(make_user("eve@example.org")), member)
    again = invite(as_zoe, "fay@example.org", "member")
    tenants.change_role(as_ana, membership_of(zoe, tenant), role="member")
    with pytest.raises(service.InvitationOver):
        service.accept_invitation(actor_from_user(make_user("fay@example.org")), again)


def test_an_invitation_sent_while_its_sender_was_being_removed_does_not_open(
    as_ana, ada, as_ada, dan, tenant, invite, browser_of
):
    token = invite(as_ada, "dan@example.org")
    membership_of(ada, tenant).delete()  # as if it had been sent a moment later
    path = reverse("tenants:invitation_accept", args=[token])
    assert browser_of(dan).get(path).status_code == 410
    assert browser_of(dan).post(path).status_code == 410
    assert not Membership.objects.filter(tenant=tenant, user=dan).exists()


def test_an_unknown_link_an_anonymous_and_a_token_get_nowhere(as_ana, dan, invite, ana):
    token = invite(as_ana, "ana2@example.org")
    with pytest.raises(Hidden):
        service.accept_invitation(actor_from_user(dan), "made-up")
    with pytest.raises(NotSignedIn):
        service.accept_invitation(NOBODY, token)
    with pytest.raises(Forbidden):
        service.accept_invitation(http.actor_from_token(make_token(ana)), token)


def test_one_address_has_one_open_invitation(as_ana, invite):
    invite(as_ana, "dan@example.org")
    with pytest.raises(Invalid) as refusal:
        invite(as_ana, "DAN@example.org")
    assert refusal.value.faults[0].code == "already_invited"


@pytest.mark.parametrize("email", ["", "dan", "dan@", "a b@example.org"])
def test_a_wrong_address_is_named_at_its_field(as_ana, email):
    with pytest.raises(Invalid) as refusal:
        service.invite_member(as_ana, email=email, role="member")
    assert refusal.value.faults[0].pointer == "/email"


def test_nobody_invites_above_their_own_role(as_ada, as_ana, invite):
    with pytest.raises(Invalid) as refusal:
        invite(as_ada, "dan@example.org", "owner")
    assert refusal.value.faults[0].code == "above_own_role"
    invite(as_ada, "dan@example.org", "admin")
    invite(as_ana, "eve@example.org", "owner")


@pytest.mark.django_db(transaction=True)
def test_two_clicks_on_one_link_make_one_membership(as_ana, dan, tenant):
    service.invite_member(as_ana, email="dan@example.org", role="member")
    token = token_in(mail.outbox[-1].body)
    actor = actor_from_user(dan)
    results = at_once(*[lambda: service.accept_invitation(actor, token)] * 3)
    assert sorted(type(one).__name__ for one in results) == ["InvitationOver", "InvitationOver", "Membership"]
    assert Membership.objects.filter(tenant=tenant, user=dan).count() == 1
    assert AuditEntry.objects.filter(action="member.joined").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_admins_who_invite_one_address_at_once_send_one_link(as_ana, as_ada):
    calls = [
        lambda a=actor: service.invite_member(a, email="dan@example.org", role="member")
        for actor in (as_ana, as_ada)
    ]
    results = at_once(*calls)
    assert sorted(type(one).__name__ for one in results) == ["Invalid", "Invitation"]
    assert len(mail.outbox) == 1


def test_the_signed_out_are_led_through_sign_up_and_back(client, as_ana, invite, tenant):
    path = reverse("tenants:invitation_accept", args=[invite(as_ana, "new@example.org")])
    page = client.get(path)
    assert page.status_code == 200
    assert f"{reverse('account_signup')}?next={path}" in page.content.decode()
    fields = {
        "email": "New@example.org",
        "password1": "hazel wren 42 moss",
        "password2": "hazel wren 42 moss",
    }
    answer = client.post(f"{reverse('account_signup')}?next={path}", {**fields, "next": path})
    assert answer.status_code == 302 and answer["Location"] == path
    assert client.post(path).status_code == 302
    assert Membership.objects.get(user__email="new@example.org").tenant == tenant


def test_who_signs_up_without_an_invitation_comes_to_name_a_tenant(client, db):
    fields = {
        "email": "solo@example.org",
        "password1": "hazel wren 42 moss",
        "password2": "hazel wren 42 moss",
    }
    answer = client.post(reverse("account_signup"), fields)
    assert (answer.status_code, answer["Location"]) == (302, reverse("tenants:tenant_new"))


def test_the_page_of_an_invitation_shows_its_state(browser_of, client, as_ana, dan, cy, invite):
    token = invite(as_ana, "dan@example.org")
    path = reverse("tenants:invitation_accept", args=[token])
    assert "another address" in browser_of(cy).get(path).content.decode()
    assert browser_of(cy).post(path).status_code == 403
    assert browser_of(dan).get(path).status_code == 200
    service.accept_invitation(actor_from_user(dan), token)
    assert browser_of(dan).get(path).status_code == 410
    assert client.get(reverse("tenants:invitation_accept", args=["nothing"])).status_code == 404
