"""Tenants: made, renamed, switched to; who belongs with which role; the last owner stays."""

from __future__ import annotations

import pytest

from jobs.models import Endpoint
from tenants import http, permissions
from tenants.actor import SYSTEM
from tenants.errors import Forbidden, Hidden, Invalid, QuotaExceeded
from tenants.http import actor_from_user
from tenants.models import ApiToken, AuditEntry, Membership, Tenant, User
from tenants.quotas import ensure_within
from tenants.roles import EVERY_PERMISSION, PERMISSIONS, SCOPES, Role
from tenants.services import tenants as service
from tenants.wording import RIGHTS, SCOPE_WORDS
from tests.factories import make_tenant, make_token, make_user
from tests.tenants.conftest import at_once


def membership_of(user, tenant):
    return Membership.objects.get(user=user, tenant=tenant)


def test_who_makes_a_tenant_owns_it_and_works_in_it(as_ben, ben):
    tenant = service.create_tenant(as_ben, name="  Vision   Team ")
    assert (tenant.name, tenant.slug) == ("Vision Team", "vision-team")
    actor = actor_from_user(User.objects.get(pk=ben.pk))
    assert (actor.tenant, actor.role) == (tenant, Role.OWNER)
    assert AuditEntry.objects.get(tenant=tenant).action == "tenant.created"


def test_two_tenants_of_one_name_get_two_short_names(as_ana, as_cy):
    slugs = {service.create_tenant(actor, name="Twin").slug for actor in (as_ana, as_cy, as_ana)}
    assert slugs == {"twin", "twin-2", "twin-3"}


def test_a_name_without_latin_letters_still_gets_a_short_name(as_ana):
    assert service.create_tenant(as_ana, name="视觉组").slug.startswith("team-")


@pytest.mark.parametrize("name", ["", "   ", "x" * 81])
def test_a_tenant_needs_a_name_of_reasonable_length(as_ana, name):
    with pytest.raises(Invalid) as refusal:
        service.create_tenant(as_ana, name=name)
    assert refusal.value.faults[0].pointer == "/name"


def test_a_token_cannot_make_or_switch_tenants(ana, tenant):
    actor = http.actor_from_token(make_token(ana))
    with pytest.raises(Forbidden):
        service.create_tenant(actor, name="Other")
    with pytest.raises(Forbidden):
        service.switch_tenant(actor, tenant)


def test_only_owners_and_admins_rename_and_strangers_see_nothing(as_ana, as_ben, as_cy, as_ada, tenant):
    assert service.rename_tenant(as_ada, tenant, name="New").name == "New"
    assert AuditEntry.objects.get(action="tenant.renamed").details == {"before": "Lab", "after": "New"}
    with pytest.raises(Forbidden):
        service.rename_tenant(as_ben, tenant, name="Mine")
    with pytest.raises(Hidden):
        service.rename_tenant(as_cy, tenant, name="Mine")
    assert Tenant.objects.get(pk=tenant.pk).name == "New"


def test_a_person_switches_only_among_their_own_tenants(as_ana, ana, tenant):
    second = service.create_tenant(as_ana, name="Second")
    service.switch_tenant(as_ana, tenant)
    assert actor_from_user(User.objects.get(pk=ana.pk)).tenant == tenant
    assert set(Tenant.objects.visible_to(as_ana)) == {tenant, second}
    with pytest.raises(Hidden):
        service.switch_tenant(as_ana, make_tenant("Foreign"))


def test_an_admin_changes_roles_up_to_their_own_but_makes_no_owner(as_ada, ada, ana, ben, tenant):
    assert service.change_role(as_ada, membership_of(ben, tenant), role="admin").role == "admin"
    with pytest.raises(Forbidden):
        service.change_role(as_ada, membership_of(ben, tenant), role="owner")
    with pytest.raises(Forbidden):
        service.change_role(as_ada, membership_of(ada, tenant), role="owner")
    with pytest.raises(Forbidden):
        service.change_role(as_ada, membership_of(ana, tenant), role="viewer")
    with pytest.raises(Forbidden):
        service.remove_member(as_ada, membership_of(ana, tenant))
    assert membership_of(ana, tenant).role == "owner"


def test_a_member_changes_nobodys_role(as_ben, ben, ana, as_cy, tenant):
    with pytest.raises(Forbidden):
        service.change_role(as_ben, membership_of(ben, tenant), role="admin")
    with pytest.raises(Forbidden):
        service.remove_member(as_ben, membership_of(ana, tenant))
    with pytest.raises(Hidden):
        service.remove_member(as_cy, membership_of(ana, tenant))


def test_a_role_that_does_not_exist_is_named_at_its_field(as_ana, ben, tenant):
    with pytest.raises(Invalid) as refusal:
        service.change_role(as_ana, membership_of(ben, tenant), role="king")
    assert refusal.value.faults[0].pointer == "/role"
    assert "viewer" in refusal.value.detail


def test_the_last_owner_can_neither_go_nor_be_demoted(as_ana, ana, tenant):
    with pytest.raises(service.LastOwner):
        service.change_role(as_ana, membership_of(ana, tenant), role="admin")
    with pytest.raises(service.LastOwner):
        service.remove_member(as_ana, membership_of(ana, tenant))
    with pytest.raises(service.LastOwner):
        service.remove_member(SYSTEM, membership_of(ana, tenant))


def test_an_owner_who_cannot_sign_in_does_not_count_as_an_owner(as_ana, ana, tenant):
    make_user("idle@example.org", tenant=tenant, role="owner", is_active=False)
    with pytest.raises(service.LastOwner):
        service.remove_member(as_ana, membership_of(ana, tenant))


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_leave_at_the_same_moment_leave_one_behind(tenant, ana):
    dan = make_user("dan@example.org", tenant=tenant, role="owner")
    actors = [(actor_from_user(user), membership_of(user, tenant)) for user in (ana, dan)]
    results = at_once(*[lambda a=actor, m=member: service.remove_member(a, m) for actor, member in actors])
    assert sorted(type(one).__name__ for one in results) == ["LastOwner", "NoneType"]
    assert Membership.objects.filter(tenant=tenant, role="owner").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_demote_each_other_leave_one_owner(tenant, ana):
    dan = make_user("dan@example.org", tenant=tenant, role="owner")
    pairs = [(actor_from_user(a), membership_of(b, tenant)) for a, b in ((ana, dan), (dan, ana))]
    at_once(*[lambda a=actor, m=member: service.change_role(a, m, role="member") for actor, member in pairs])
    assert Membership.objects.filter(tenant=tenant, role="owner").count() >= 1


def test_a_removed_member_loses_tokens_grants_and_the_active_tenant(as_ana, ben, tenant, committed):
    token = make_token(ben)
    endpoint = Endpoint.objects.create(tenant=tenant, name="Digits", slug="digits")
    permissions.grant("endpoints.invoke", endpoint, to=ben)
    with committed():
        service.remove_member(as_ana, membership_of(ben, tenant))
    assert http.actor_from_token(token) is None
    assert ApiToken.objects.get(created_by=ben).revoked_at is not None
    actor = actor_from_user(User.objects.get(pk=ben.pk))
    assert actor.tenant is None
    assert not Endpoint.objects.visible_to(actor).exists()
    assert AuditEntry.objects.get(action="member.removed").target_label.startswith("ben@example.org")


def test_a_member_may_leave_but_their_token_may_not_do_it_for_them(as_ben, ben, tenant):
    with pytest.raises(Forbidden):
        service.remove_member(http.actor_from_token(make_token(ben)), membership_of(ben, tenant))
    service.remove_member(as_ben, membership_of(ben, tenant))
    assert AuditEntry.objects.get().action == "member.left"


def test_a_change_of_role_tells_the_gateway(as_ana, ben, tenant, committed):
    from tenants import outbox

    with committed():
        service.change_role(as_ana, membership_of(ben, tenant), role="viewer")
    assert ("jobs.publish_routes", ()) in outbox.queued


@pytest.mark.parametrize("what", ["processes", "gpus", "storage_bytes", "endpoints"])
def test_a_quota_lets_in_what_fits_and_says_what_would_help(db, what):
    small = make_tenant("Small", **{f"max_{what}": 4})
    ensure_within(small, what=what, used=3, wanted=1)
    ensure_within(make_tenant("Free"), what=what, used=10**9, wanted=10**9)
    with pytest.raises(QuotaExceeded, match="Free some first"):
        ensure_within(small, what=what, used=3, wanted=2)
    with pytest.raises(QuotaExceeded, match="Ask for less"):
        ensure_within(small, what=what, used=0, wanted=5)


def test_the_matrix_of_rights_says_exactly_what_the_roles_hold():
    assert frozenset().union(*(permissions for _label, permissions in RIGHTS)) == EVERY_PERMISSION
    for _label, held in RIGHTS:
        for role in Role:
            assert held <= PERMISSIONS[role] or not held & PERMISSIONS[role]
    assert set(SCOPE_WORDS) == set(SCOPES)
