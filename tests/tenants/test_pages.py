"""Pages of this app: who may open them, what they do, the one-time link, the audit log."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tenants import audit
from tenants.http import actor_from_user
from tenants.models import AuditEntry, IdempotencyRecord, Invitation, Membership, SignInLink, User
from tenants.services import accounts, housekeeping, secrets
from tenants.services import tenants as tenant_service
from tests.factories import make_user
from tests.tenants.conftest import at_once

PAGES = ["member_list", "token_list", "token_new", "audit_list", "audit_csv", "tenant_new", "tenant_settings"]


def membership_path(name, user):
    return reverse(f"tenants:{name}", args=[Membership.objects.get(user=user).public_id])


@pytest.mark.parametrize(
    ("role", "opened"),
    [
        ("owner", set(PAGES)),
        ("admin", set(PAGES)),
        ("member", {"member_list", "token_list", "token_new", "tenant_new", "tenant_settings"}),
        ("viewer", {"member_list", "tenant_new", "tenant_settings"}),
        ("billing", {"member_list", "tenant_new", "tenant_settings"}),
    ],
)
def test_each_role_opens_its_pages_and_gets_403_from_the_others(browser_of, tenant, ana, ben, role, opened):
    browser = browser_of(make_user("somebody@example.org", tenant=tenant, role=role))
    answers = {name: browser.get(reverse(f"tenants:{name}")).status_code for name in PAGES}
    assert {name for name, status in answers.items() if status == 200} == opened
    assert {status for name, status in answers.items() if name not in opened} <= {403}


@pytest.mark.parametrize("name", PAGES)
def test_the_signed_out_are_sent_to_sign_in(client, db, name):
    path = reverse(f"tenants:{name}")
    answer = client.get(path)
    assert answer.status_code == 302 and answer["Location"] == f"/accounts/login/?next={path}"


def test_who_belongs_nowhere_is_taken_to_name_a_tenant_and_then_owns_it(browser_of, db):
    browser = browser_of(make_user("new@example.org"))
    assert browser.get(reverse("tenants:member_list"))["Location"] == reverse("tenants:tenant_new")
    assert browser.post(reverse("tenants:tenant_new"), {"name": ""}).status_code == 422
    assert browser.post(reverse("tenants:tenant_new"), {"name": "My team"}).status_code == 302
    assert "My team" in browser.get(reverse("tenants:tenant_settings")).content.decode()


def test_members_are_invited_changed_and_removed_by_page(browser_of, ana, ben):
    browser = browser_of(ana)
    wrong = browser.post(reverse("tenants:invitation_new"), {"email": "ben@example.org", "role": "member"})
    assert wrong.status_code == 422 and "already belongs" in wrong.content.decode()
    browser.post(reverse("tenants:invitation_new"), {"email": "dan@example.org", "role": "viewer"})
    page = browser.get(reverse("tenants:member_list")).content.decode()
    assert "dan@example.org" in page and "Pending invitations" in page
    invitation = Invitation.objects.get()
    browser.post(reverse("tenants:invitation_revoke", args=[invitation.public_id]))
    assert not Invitation.objects.get().is_open
    browser.post(membership_path("member_role", ben), {"role": "admin"})
    assert Membership.objects.get(user=ben).role == "admin"
    browser.post(membership_path("member_remove", ben))
    assert not Membership.objects.filter(user=ben).exists()


def test_the_last_owner_is_told_why_they_cannot_leave(browser_of, ana):
    browser = browser_of(ana)
    page = browser.post(membership_path("member_remove", ana), follow=True)
    assert "keeps at least one owner" in page.content.decode()
    assert Membership.objects.filter(user=ana).exists()


def test_a_member_sees_no_buttons_they_may_not_press(browser_of, ben, ana, as_ana, invite):
    invite(as_ana, "dan@example.org")
    page = browser_of(ben).get(reverse("tenants:member_list")).content.decode()
    assert 'data-dialog="invite"' not in page
    assert "dan@example.org" not in page
    assert membership_path("member_role", ana) not in page


def test_strangers_get_404_and_colleagues_403_from_actions_on_members(browser_of, ana, ben, cy):
    for name in ("member_role", "member_remove"):
        assert browser_of(cy).post(membership_path(name, ana), {"role": "viewer"}).status_code == 404
        assert browser_of(ben).post(membership_path(name, ana), {"role": "viewer"}).status_code == 403
        assert browser_of(ana).get(membership_path(name, ana)).status_code == 405


def test_a_person_switches_by_page_only_to_their_own(browser_of, ana, as_ana, tenant, cy):
    second = tenant_service.create_tenant(as_ana, name="Second")
    browser = browser_of(ana)
    switch = reverse("tenants:tenant_switch")
    assert browser.post(switch, {"tenant": tenant.public_id}).status_code == 302
    assert User.objects.get(pk=ana.pk).active_tenant == tenant
    for wrong in (cy.active_tenant.public_id, "", "nonsense", "\0"):
        assert browser.post(switch, {"tenant": wrong}).status_code == 404
    assert browser.post(switch, {"tenant": second.public_id}).status_code == 302


def test_settings_show_quotas_and_let_only_admins_rename(browser_of, tenant, ana, ben):
    tenant.max_gpus = 7
    tenant.save()
    page = browser_of(ben).get(reverse("tenants:tenant_settings")).content.decode()
    assert ">7<" in page and 'name="name"' not in page
    assert browser_of(ben).post(reverse("tenants:tenant_settings"), {"name": "x"}).status_code == 403
    assert browser_of(ana).post(reverse("tenants:tenant_settings"), {"name": "New"}).status_code == 302
    tenant.refresh_from_db()
    assert tenant.name == "New"


def test_a_sign_in_link_signs_in_once(client, ana):
    path = accounts.make_sign_in_link(ana)
    assert path.rsplit("/", 1)[1] not in str(SignInLink.objects.values())
    assert client.head(path).status_code == 405  # a link checker does not spend it
    answer = client.get(path)
    assert (answer.status_code, answer["Location"]) == (302, reverse("console:overview"))
    assert client.get(reverse("tenants:member_list")).status_code == 200
    again = Client().get(path)
    assert again.status_code == 410 and "used before" in again.content.decode()
    assert AuditEntry.objects.get().action == "person.signed_in_by_link"


def test_a_sign_in_link_expires_and_does_not_wake_the_inactive(client, ana, ben):
    late = accounts.make_sign_in_link(ana)
    SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client.get(late).status_code == 410
    ben.is_active = False
    ben.save()
    assert client.get(accounts.make_sign_in_link(ben)).status_code == 410
    assert client.get(reverse("tenants:magic_login", args=["made-up"])).status_code == 404
    assert client.get(reverse("tenants:member_list")).status_code == 302


@pytest.mark.django_db(transaction=True)
def test_two_who_use_one_sign_in_link_at_once_sign_in_one(ana):
    token = accounts.make_sign_in_link(ana).rsplit("/", 1)[1]
    results = at_once(*[lambda: accounts.use_sign_in_link(token)] * 4)
    assert sorted(type(one).__name__ for one in results) == ["LinkUsedUp"] * 3 + ["User"]


def test_the_audit_log_is_filtered_and_paged(browser_of, as_ana, as_ben, ana, as_cy):
    for number in range(60):
        audit.record(as_ana, "job.queued", number=number)
    audit.record(as_ben, "token.created")
    audit.record(as_cy, "token.created")
    browser = browser_of(ana)
    path = reverse("tenants:audit_list")
    assert browser.get(path).context["page_obj"].paginator.count == 61
    assert len(browser.get(path, {"page": 2}).context["page_obj"].object_list) == 11
    assert browser.get(path, {"action": "token.created"}).context["page_obj"].paginator.count == 1
    assert browser.get(path, {"actor": "BEN@"}).context["page_obj"].paginator.count == 1
    found = browser.get(path, {"action": "job.queued", "page": 2})
    assert "action=job.queued&amp;page=1" in found.content.decode()


def test_no_cell_of_the_audit_csv_is_run_as_a_formula(browser_of, as_ana, ana, tenant):
    for number, risky in enumerate(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1"]):
        tenant.name = risky
        audit.record(as_ana, f"tenant.renamed_{number}", tenant, tenant=tenant)
    answer = browser_of(ana).get(reverse("tenants:audit_csv"))
    rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    column = rows[0].index("target")
    assert len(rows) == 8 and all(row[column].startswith("'") for row in rows[1:])
    assert "attachment" in answer["Content-Disposition"]


def test_answers_older_than_a_day_are_forgotten(db):
    now = timezone.now()
    for age in (1, 23, 25, 100):
        IdempotencyRecord.objects.create(scope="s", key=str(age), created_at=now - timedelta(hours=age))
    assert housekeeping.forget_idempotency() == 2
    assert set(IdempotencyRecord.objects.values_list("key", flat=True)) == {"1", "23"}


def test_the_master_key_is_rotated_by_command(tenant, settings, tmp_path, capsys):
    key = secrets.data_key(tenant)
    new = tmp_path / "new"
    new.write_text("n" * 40 + "\n")
    old = tmp_path / "old"
    old.write_text("not the old key")
    with pytest.raises(CommandError, match="Nothing was changed"):
        call_command("rotate_master_key", old_file=old, new_file=new)
    with pytest.raises(CommandError, match="No new key"):
        call_command("rotate_master_key")
    call_command("rotate_master_key", new_file=new)
    assert "1 tenant keys" in capsys.readouterr().out
    settings.MASTER_KEY = "n" * 40
    assert secrets.data_key(type(tenant).objects.get(pk=tenant.pk)) == key


def test_staff_read_people_and_set_quotas_in_the_admin(browser_of, tenant, ana):
    root = User.objects.create_superuser("root@example.org", "correct horse battery")
    browser = browser_of(root)
    for name in ("user", "tenant"):
        assert browser.get(reverse(f"admin:tenants_{name}_changelist")).status_code == 200
        assert browser.get(reverse(f"admin:tenants_{name}_add")).status_code == 403
    assert browser.get(reverse("admin:tenants_user_change", args=[ana.pk])).status_code == 200
    path = reverse("admin:tenants_tenant_change", args=[tenant.pk])
    assert browser.post(path, {"max_gpus": "3"}).status_code == 302
    tenant.refresh_from_db()
    assert (tenant.max_gpus, tenant.name) == (3, "Lab")
    assert AuditEntry.objects.get(action="tenant.quotas_changed").details == {"max_gpus": 3}
    assert browser_of(ana).get(reverse("admin:tenants_tenant_changelist")).status_code == 302


def test_an_actor_follows_a_removed_membership_at_once(as_ana, ben, browser_of):
    browser = browser_of(ben)
    assert browser.get(reverse("tenants:member_list")).status_code == 200
    tenant_service.remove_member(as_ana, Membership.objects.get(user=ben))
    assert browser.get(reverse("tenants:member_list")).status_code == 302
    assert actor_from_user(User.objects.get(pk=ben.pk)).role is None
