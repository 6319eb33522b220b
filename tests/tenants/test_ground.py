"""Actor, door, lifecycle-free ground: tokens, crypto, audit."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, InternalError, transaction

from tenants import audit, crypto, http, permissions
from tenants.actor import NOBODY, SYSTEM
from tenants.errors import Forbidden, Hidden, NotSignedIn
from tenants.models import AuditEntry, Membership, new_public_id
from tenants.services import secrets
from tests.factories import make_tenant, make_token


def test_public_ids_sort_by_time_and_do_not_repeat():
    ids = [new_public_id("job") for _ in range(200)]
    assert len(set(ids)) == 200
    assert all(len(one) == len("job_") + 26 for one in ids)


def test_a_token_with_a_typing_error_is_told_apart_by_its_checksum():
    token = http.new_token()
    assert http.looks_like_token(token)
    swapped = token[:10] + ("a" if token[10] != "a" else "b") + token[11:]
    assert not http.looks_like_token(swapped)


def test_a_revoked_or_orphaned_token_acts_for_nobody(ana, tenant):
    token = make_token(ana)
    assert http.actor_from_token(token).tenant == tenant
    Membership.objects.filter(user=ana).delete()
    assert http.actor_from_token(token) is None


def test_nobody_sees_nothing_and_the_system_sees_all(ana, ben):
    assert not Membership.objects.visible_to(NOBODY).exists()
    assert Membership.objects.visible_to(SYSTEM).count() == 2


def test_strangers_get_hidden_and_colleagues_forbidden(as_ana, as_ben, as_cy, ana):
    membership = Membership.objects.get(user=ana)
    permissions.require(as_ana, "members.manage", membership)
    with pytest.raises(Forbidden):
        permissions.require(as_ben, "members.manage", membership)
    with pytest.raises(Hidden):
        permissions.require(as_cy, "members.manage", membership)
    with pytest.raises(NotSignedIn):
        permissions.require(NOBODY, "members.manage", membership)


def test_a_token_may_do_only_what_its_scopes_carry(ana):
    actor = http.actor_from_token(make_token(ana, scopes=["jobs:read"]))
    assert actor.may("jobs.view")
    assert not actor.may("jobs.submit")
    assert not actor.may("datasets.view")


def test_an_inactive_person_acts_for_nobody(ana):
    ana.is_active = False
    ana.save()
    assert http.actor_from_user(ana) is NOBODY


def test_audit_entries_cannot_be_changed_or_deleted(as_ana, tenant):
    audit.record(as_ana, "tenant.renamed", tenant, tenant=tenant)
    for change in (lambda: AuditEntry.objects.update(action="x"), lambda: AuditEntry.objects.all().delete()):
        with pytest.raises((IntegrityError, InternalError)), transaction.atomic():
            change()
    assert AuditEntry.objects.get().actor_label == "ana@example.org"


@pytest.mark.parametrize("size", [0, 1, crypto.CHUNK_BYTES, crypto.CHUNK_BYTES * 2 + 17])
def test_a_sealed_stream_opens_to_what_went_in(size):
    key, plain = crypto.new_data_key(), bytes(size)
    sealed = b"".join(crypto.seal_stream(key, [plain], context="c"))
    assert b"".join(crypto.unseal_stream(key, [sealed], context="c")) == plain


def test_a_sealed_stream_that_was_cut_changed_or_moved_does_not_open():
    key = crypto.new_data_key()
    sealed = b"".join(crypto.seal_stream(key, [b"x" * (crypto.CHUNK_BYTES + 5)], context="c"))
    for bad, context in (
        (sealed[:-1], "c"),
        (sealed[: crypto.CHUNK_BYTES + 27], "c"),
        (sealed[:40] + b"?" + sealed[41:], "c"),
        (sealed, "other"),
    ):
        with pytest.raises(crypto.Sealed):
            list(crypto.unseal_stream(key, [bad], context=context))


def test_a_tenants_key_does_not_open_for_another_tenant(tenant):
    other = make_tenant("Other")
    key = secrets.data_key(tenant)
    assert secrets.data_key(tenant) == key
    with pytest.raises(crypto.Sealed):
        crypto.unwrap_key(bytes(tenant.key.wrapped), tenant_id=other.public_id)


def test_the_master_key_can_be_rotated(tenant, as_ana, settings):
    key = secrets.data_key(tenant)
    secrets.rotate_master_key(as_ana, old=settings.MASTER_KEY, new="another")
    settings.MASTER_KEY = "another"
    assert secrets.data_key(type(tenant).objects.get(pk=tenant.pk)) == key
