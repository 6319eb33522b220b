"""Publishing, revising, changing, stopping: who may, what is refused, what is written down."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from jobs import routes, tasks_endpoints
from jobs.models import Endpoint, Replica
from jobs.services.endpoints import (
    change_endpoint,
    publish_endpoint,
    revise_endpoint,
    start_endpoint,
    stop_endpoint,
)
from jobs.specs_endpoints import EndpointChange, EndpointSpec, slug_for
from jobs.states import EndpointStatus, ReplicaStatus
from tenants import outbox
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Forbidden, Hidden, Invalid, QuotaExceeded
from tenants.http import actor_from_user, digest
from tenants.lifecycle import move
from tenants.models import ApiToken, AuditEntry, Membership, Tenant, User
from tenants.services.grants import share, unshare
from tests import factories
from tests.jobs.factories_endpoints import make_endpoint, make_model_version

pytestmark = pytest.mark.django_db


def test_publishing_makes_a_private_endpoint_that_starts(as_ana: Actor) -> None:
    endpoint = make_endpoint(as_ana, name="Digits of ours")
    assert (endpoint.slug, endpoint.status, endpoint.is_public) == ("digits-of-ours", "starting", False)
    assert endpoint.current is not None and endpoint.current.number == 1
    assert endpoint.base_url.endswith("/t/lab/digits-of-ours")
    assert AuditEntry.objects.filter(action="endpoint.published", target_id=endpoint.public_id).exists()


def test_publishing_to_a_taken_address_adds_a_revision(as_ana: Actor, tenant: Tenant) -> None:
    first = make_endpoint(as_ana, slug="digits")
    better = make_model_version(tenant, number=2)
    again = publish_endpoint(as_ana, name="whatever", slug="digits", version=better)
    assert again.pk == first.pk
    assert again.current is not None
    assert (again.current.number, again.current.version) == (2, better)
    assert Endpoint.objects.count() == 1


def test_the_system_publishes_into_the_tenant_of_the_version(tenant: Tenant) -> None:
    endpoint = publish_endpoint(SYSTEM, name="Auto", version=make_model_version(tenant))
    assert endpoint.tenant == tenant


def test_only_roles_that_work_may_publish_and_strangers_see_nothing(
    as_ana: Actor, as_ben: Actor, as_cy: Actor, tenant: Tenant
) -> None:
    version = make_model_version(tenant)
    viewer = actor_from_user(factories.make_user("vera@example.org", tenant=tenant, role="viewer"))
    with pytest.raises(Forbidden):
        publish_endpoint(viewer, name="No", version=version)
    endpoint = publish_endpoint(as_ben, name="Yes", version=version)
    with pytest.raises(Invalid):
        publish_endpoint(as_cy, name="Mine", version=version)
    for action in (stop_endpoint, start_endpoint):
        with pytest.raises(Hidden):
            action(as_cy, endpoint)
        with pytest.raises(Forbidden):
            action(viewer, endpoint)
    assert not Endpoint.objects.visible_to(as_cy).exists()


def test_a_spec_names_every_fault_at_once(as_ana: Actor, as_cy: Actor, tenant: Tenant) -> None:
    data = {"name": "", "slug": "Not OK!", "version": "ver_nope", "is_public": "yes",
            "requests_per_minute": 0, "colour": "red"}  # fmt: skip
    with pytest.raises(Invalid) as refused:
        EndpointSpec.parse(as_ana, data)
    pointers = {fault.pointer for fault in refused.value.faults}
    assert pointers == {"/name", "/version", "/is_public", "/requests_per_minute", "/colour"}
    with pytest.raises(Invalid) as refused:
        EndpointSpec.parse(
            as_ana, {"name": "A", "slug": "-a", "version": make_model_version(tenant).public_id}
        )
    assert [fault.pointer for fault in refused.value.faults] == ["/slug"]


def test_a_spec_refuses_a_taken_address_and_a_foreign_version(
    as_ana: Actor, as_cy: Actor, tenant: Tenant
) -> None:
    endpoint = make_endpoint(as_ana, slug="digits")
    version = endpoint.current.version.public_id
    with pytest.raises(Invalid) as refused:
        EndpointSpec.parse(as_ana, {"name": "Digits", "slug": "digits", "version": version})
    assert [(one.pointer, one.code) for one in refused.value.faults] == [("/slug", "taken")]
    with pytest.raises(Invalid) as refused:
        EndpointSpec.parse(as_cy, {"name": "Digits", "version": version})
    assert [(one.pointer, one.code) for one in refused.value.faults] == [("/version", "unknown")]


def test_a_version_without_a_graph_cannot_be_published(as_ana: Actor, tenant: Tenant) -> None:
    version = make_model_version(tenant)
    version.artifacts.filter(name="model.onnx").delete()
    with pytest.raises(Invalid, match=r"model\.onnx"):
        publish_endpoint(as_ana, name="No", version=version)


def test_names_become_addresses() -> None:
    assert slug_for("Our Digits, v2!") == "our-digits-v2"
    assert slug_for("数字") == "endpoint"
    assert len(slug_for("x" * 80)) == 40


def test_the_quota_of_endpoints_holds(as_ana: Actor, tenant: Tenant) -> None:
    Tenant.objects.update(max_endpoints=1)
    tenant.refresh_from_db()
    first = make_endpoint(as_ana, name="One")
    with pytest.raises(QuotaExceeded):
        publish_endpoint(as_ana, name="Two", version=make_model_version(tenant, number=2))
    stop_endpoint(as_ana, first)
    publish_endpoint(as_ana, name="Two", version=make_model_version(tenant, number=3))
    with pytest.raises(QuotaExceeded):
        start_endpoint(as_ana, first)


@pytest.mark.django_db(transaction=True)
def test_two_publishers_at_once_do_not_pass_the_quota(as_ana: Actor, tenant: Tenant) -> None:
    Tenant.objects.update(max_endpoints=1)
    tenant.refresh_from_db()
    versions = [make_model_version(tenant, number=number) for number in (1, 2)]
    outcomes: list[str] = []
    gate = threading.Barrier(2)

    def publish(number: int) -> None:
        gate.wait()
        try:
            publish_endpoint(as_ana, name=f"E{number}", version=versions[number])
            outcomes.append("made")
        except QuotaExceeded:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=publish, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["made", "refused"]


def test_revising_to_what_answers_already_is_a_conflict(as_ana: Actor) -> None:
    endpoint = make_endpoint(as_ana)
    move(endpoint, to=EndpointStatus.LIVE, by=SYSTEM)
    with pytest.raises(Conflict, match="already answers"):
        revise_endpoint(as_ana, endpoint, endpoint.current.version)


def test_stopping_and_starting_again(as_ana: Actor) -> None:
    endpoint = make_endpoint(as_ana)
    assert stop_endpoint(as_ana, endpoint).status == "stopped"
    assert stop_endpoint(as_ana, endpoint).status == "stopped"  # twice is as good as once
    assert start_endpoint(as_ana, endpoint).status == "starting"
    assert AuditEntry.objects.filter(action="endpoint.stopped").count() == 1


def test_settings_change_one_by_one(as_ana: Actor) -> None:
    endpoint = make_endpoint(as_ana)
    changed = change_endpoint(as_ana, endpoint, EndpointChange.parse({"requests_per_minute": 5}))
    assert (changed.requests_per_minute, changed.is_public, changed.name) == (5, False, "Digits")
    opened = change_endpoint(as_ana, endpoint, EndpointChange.parse({"is_public": True}))
    assert opened.is_public
    assert AuditEntry.objects.get(action="endpoint.changed", details__is_public=True)
    with pytest.raises(Invalid):
        EndpointChange.parse({"requests_per_minute": "many"})


# -- the snapshot --------------------------------------------------------------------------------------------


def make_ready(endpoint: Endpoint, address: str) -> Replica:
    replica = Replica.objects.create(tenant=endpoint.tenant, revision=endpoint.current, fence="f")
    move(replica, to=ReplicaStatus.READY, by=SYSTEM, address=address)
    return replica


def may(token: str, endpoint: Endpoint) -> bool | None:
    """Whether the snapshot lets this token call; None if it does not know it at all."""
    known = routes.build()["tokens"].get(digest(token))
    if known is None:
        return None
    return endpoint.public_id in known["granted"] or (
        known["whole_tenant"] and known["tenant_id"] == endpoint.tenant.public_id
    )


def test_the_snapshot_says_where_an_endpoint_is_answered(as_ana: Actor) -> None:
    endpoint = make_endpoint(as_ana, slug="digits", requests_per_minute=7)
    assert routes.build()["endpoints"]["lab/digits"]["workers"] == []
    make_ready(endpoint, "/run/a")
    one = routes.build()["endpoints"]["lab/digits"]
    assert (one["workers"], one["rpm"], one["model_version"], one["public"]) == (["/run/a"], 7, "1", False)
    stop_endpoint(as_ana, endpoint)
    assert routes.build()["endpoints"]["lab/digits"]["workers"] == []


def test_the_old_revision_answers_until_the_new_one_is_ready(as_ana: Actor, tenant: Tenant) -> None:
    endpoint = make_endpoint(as_ana, slug="digits")
    make_ready(endpoint, "/run/old")
    endpoint = revise_endpoint(as_ana, endpoint, make_model_version(tenant, number=2))
    one = routes.build()["endpoints"]["lab/digits"]
    assert (one["workers"], one["model_version"]) == (["/run/old"], "1")
    make_ready(endpoint, "/run/new")
    one = routes.build()["endpoints"]["lab/digits"]
    assert (one["workers"], one["model_version"]) == (["/run/new"], "2")


def test_tokens_may_call_what_their_maker_may(as_ana: Actor, ana: User, ben: User, cy: User) -> None:
    endpoint = make_endpoint(as_ana)
    token = factories.make_token(ben)
    assert may(token, endpoint) is True
    assert may(factories.make_token(ben, scopes=["endpoints:read"]), endpoint) is False
    assert may(factories.make_token(ana, granted_only=True), endpoint) is False
    assert may(factories.make_token(cy), endpoint) is False
    Membership.objects.filter(user=ben).update(role="viewer")
    assert may(token, endpoint) is False
    Membership.objects.filter(user=ben).delete()
    assert may(token, endpoint) is None
    revoked = factories.make_token(ana)
    ApiToken.objects.filter(digest=digest(revoked)).update(revoked_at="2026-01-01T00:00:00Z")
    assert may(revoked, endpoint) is None


def test_sharing_lets_one_person_and_one_token_in_and_no_further(
    as_ana: Actor, ana: User, cy: User, tenant: Tenant
) -> None:
    endpoint = make_endpoint(as_ana)
    other = make_endpoint(as_ana, make_model_version(tenant, number=2), name="Other")
    of_cy, limited = factories.make_token(cy), factories.make_token(ana, granted_only=True, name="limited")
    share(as_ana, endpoint, permission="endpoints.invoke", with_email="cy@example.org")
    share(as_ana, endpoint, permission="endpoints.invoke", with_token=ApiToken.objects.get(name="limited"))
    for token in (of_cy, limited):
        assert may(token, endpoint) is True
        assert may(token, other) is False
    # the limit of a token holds for what was shared with its maker, too
    assert may(factories.make_token(cy, granted_only=True), endpoint) is False
    unshare(as_ana, endpoint, with_email="cy@example.org")
    assert may(of_cy, endpoint) is False


def test_seeing_is_not_calling(as_ana: Actor, cy: User) -> None:
    endpoint = make_endpoint(as_ana)
    token = factories.make_token(cy)
    share(as_ana, endpoint, permission="endpoints.view", with_email="cy@example.org")
    assert may(token, endpoint) is False


def test_the_snapshot_is_written_only_when_something_changed(as_ana: Actor) -> None:
    endpoint = make_endpoint(as_ana)
    assert routes.publish(force=True)
    assert not routes.publish()
    change_endpoint(as_ana, endpoint, EndpointChange.parse({"requests_per_minute": 5}))
    assert routes.publish()
    routes.redis().flushdb()
    assert routes.publish()
    routes.redis().flushdb()


def test_every_change_wakes_the_publisher(
    as_ana: Actor, django_capture_on_commit_callbacks, tenant: Tenant
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        endpoint = make_endpoint(as_ana)
    assert ("jobs.publish_routes", ()) in outbox.queued
    assert tasks_endpoints.publish_routes.name == "jobs.publish_routes"
    assert outbox.drain() >= 1
    with django_capture_on_commit_callbacks(execute=True):
        stop_endpoint(as_ana, endpoint)
    assert ("jobs.publish_routes", ()) in outbox.queued
    routes.redis().flushdb()


def test_gateways_hold_callers_to_the_deadline_and_to_how_many_at_once(as_ana: Actor) -> None:
    endpoint = make_endpoint(as_ana)
    key = f"{endpoint.tenant.slug}/{endpoint.slug}"
    usual = routes.build()["endpoints"][key]
    assert (usual["deadline_ms"], usual["most_at_once"]) == (30_000, None)
    change_endpoint(as_ana, endpoint, EndpointChange.parse({"deadline_ms": 250, "most_at_once": 4}))
    told = routes.build()["endpoints"][key]
    assert (told["deadline_ms"], told["most_at_once"]) == (250, 4)
    for wrong in ({"deadline_ms": 0}, {"most_at_once": -1}, {"deadline_ms": "soon"}):
        with pytest.raises(Invalid):
            EndpointChange.parse(wrong)
