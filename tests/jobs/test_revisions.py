"""Canary, shadow, promotion and rollback: what the rows say, and when a canary is taken back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone, translation

from jobs import canaries, routes
from jobs.canaries import Did, Guard
from jobs.gateway.pulse import BOUNDS_MS
from jobs.models import Endpoint, ModelVersion, Replica, Sample
from jobs.said import said
from jobs.services import revisions
from jobs.services.endpoints import revise_endpoint, stop_endpoint
from jobs.states import EndpointStatus, ReplicaStatus
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Forbidden, Hidden, Invalid
from tenants.http import actor_from_user
from tenants.lifecycle import move
from tenants.models import AuditEntry, Tenant
from tests import factories
from tests.jobs.factories_endpoints import make_endpoint, make_model_version

pytestmark = pytest.mark.django_db


def latency(ms: float, count: int) -> list[int]:
    counts = [0] * (len(BOUNDS_MS) + 1)
    counts[next(place for place, bound in enumerate(BOUNDS_MS) if ms <= bound)] = count
    return counts


def did(requests: int, *, errors: int = 0, ms: float = 2) -> Did:
    return Did(requests=requests, errors=errors, latency=latency(ms, requests))


GUARD = Guard(error_share=0.05, p95_ratio=2, min_requests=50)


# -- judging -------------------------------------------------------------------------------------------------


def test_a_canary_that_fails_too_often_must_go() -> None:
    assert "10.0 % of its 50 requests failed" in canaries.fault(did(500), did(50, errors=5), GUARD)
    assert canaries.fault(did(500), did(50, errors=2), GUARD) == ""


def test_nothing_is_judged_by_a_few_requests() -> None:
    assert canaries.fault(did(500), did(49, errors=49), GUARD) == ""
    assert canaries.fault(did(10), did(500, ms=400), GUARD) == "", (
        "ten requests say nothing of the stable p95"
    )


def test_a_slow_canary_must_go_and_one_slow_by_a_hair_may_stay() -> None:
    assert "p95 was" in canaries.fault(did(500, ms=10), did(100, ms=100), GUARD)
    assert canaries.fault(did(500, ms=10), did(100, ms=15), GUARD) == ""
    assert canaries.fault(did(500, ms=0.25), did(100, ms=1), GUARD) == "", (
        "under a millisecond chance decides"
    )


def test_a_canary_no_worse_than_the_stable_one_stays() -> None:
    assert canaries.fault(did(500, errors=200), did(100, errors=30), GUARD) == ""


def test_quantiles_lie_within_their_class() -> None:
    mixed = canaries.add([latency(2, 90), latency(100, 10)])
    p50, p95 = canaries.quantile_ms(mixed, 0.5), canaries.quantile_ms(mixed, 0.95)
    assert p50 is not None and 1.5 < p50 <= 2
    assert p95 is not None and 70 < p95 <= 100
    assert canaries.quantile_ms([0] * 32, 0.5) is None


# -- rows ----------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tenant: Tenant) -> ModelVersion:
    return make_model_version(tenant, number=2)


@pytest.fixture
def live(as_ana: Actor, tenant: Tenant) -> Endpoint:
    endpoint = make_endpoint(as_ana, make_model_version(tenant), slug="digits")
    answer(endpoint, endpoint.current, "/w/1")
    move(endpoint, to=EndpointStatus.LIVE, by=SYSTEM)
    return endpoint


def answer(endpoint: Endpoint, revision: object, address: str) -> None:
    replica = Replica.objects.create(tenant=endpoint.tenant, revision=revision, fence="f")
    move(replica, to=ReplicaStatus.READY, by=SYSTEM, address=address)


def route() -> dict[str, object]:
    return routes.build()["endpoints"]["lab/digits"]


def test_a_canary_takes_its_share_once_it_is_ready(
    as_ana: Actor, live: Endpoint, other: ModelVersion
) -> None:
    found = revisions.start_canary(as_ana, live, other, share=500)
    assert found.current.number == 1 and found.canary.number == 2
    assert route()["canary"]["workers"] == []
    answer(live, found.canary, "/w/2")
    told = route()
    assert told["workers"] == ["/w/1"] and told["model_version"] == "1"
    assert (told["canary"]["revision"], told["canary"]["workers"], told["canary"]["share"]) == (
        "2",
        ["/w/2"],
        500,
    )
    revisions.set_canary_share(as_ana, live, 5_000)
    assert route()["canary"]["share"] == 5_000
    assert AuditEntry.objects.filter(action="endpoint.canary_share", target_id=live.public_id).exists()


def test_promoting_makes_the_canary_answer_everybody_and_one_call_goes_back(
    as_ana: Actor, live: Endpoint, other: ModelVersion
) -> None:
    canary = revisions.start_canary(as_ana, live, other, share=500).canary
    answer(live, canary, "/w/2")
    revisions.promote_canary(as_ana, live)
    told = route()
    assert (told["workers"], told["model_version"], told["canary"]) == (["/w/2"], "2", None)
    revisions.roll_back(as_ana, live)
    told = route()
    assert (told["workers"], told["model_version"]) == (["/w/1"], "1")
    revisions.roll_back(as_ana, live)
    assert route()["model_version"] == "2", "going back twice goes forth again"


def test_rolling_back_with_a_canary_takes_only_the_canary_out(
    as_ana: Actor, live: Endpoint, other: ModelVersion
) -> None:
    revise_endpoint(as_ana, live, make_model_version(live.tenant, number=3))
    revisions.start_canary(as_ana, live, other, share=500)
    found = revisions.roll_back(as_ana, live)
    assert found.canary is None and found.current.number == 2


def test_a_first_revision_has_nothing_to_go_back_to(as_ana: Actor, live: Endpoint) -> None:
    with pytest.raises(Conflict, match="nothing to go back to"):
        revisions.roll_back(as_ana, live)


def test_an_update_of_all_ends_the_canary(as_ana: Actor, live: Endpoint, other: ModelVersion) -> None:
    revisions.start_canary(as_ana, live, other, share=500)
    found = revise_endpoint(as_ana, live, make_model_version(live.tenant, number=3))
    assert found.canary is None and found.current.number == 3 and found.previous.number == 1


def test_one_canary_at_a_time_of_another_version_on_a_running_endpoint(
    as_ana: Actor, live: Endpoint, other: ModelVersion
) -> None:
    with pytest.raises(Conflict, match="already answers"):
        revisions.start_canary(as_ana, live, live.current.version, share=500)
    with pytest.raises(Invalid):
        revisions.start_canary(as_ana, live, other, share=10_001)
    with pytest.raises(Conflict, match="No revision is being tried"):
        revisions.promote_canary(as_ana, live)
    revisions.start_canary(as_ana, live, other, share=500)
    with pytest.raises(Conflict, match="being tried already"):
        revisions.start_canary(as_ana, live, other, share=500)
    stop_endpoint(as_ana, live)
    with pytest.raises(Conflict, match="stopped"):
        revisions.set_canary_share(as_ana, live, 100)


def test_a_shadow_is_no_answer(as_ana: Actor, live: Endpoint, other: ModelVersion) -> None:
    found = revisions.start_shadow(as_ana, live, other)
    answer(live, found.shadow, "/w/9")
    told = route()
    assert told["workers"] == ["/w/1"] and told["shadow"]["workers"] == ["/w/9"]
    Replica.objects.filter(address="/w/1").update(status=ReplicaStatus.FAILED)
    told = route()
    assert told["workers"] == [], "a shadow must not answer where nobody else does"
    revisions.stop_shadow(as_ana, live)
    assert route()["shadow"] is None


def test_strangers_find_nothing_and_viewers_may_not(
    as_cy: Actor, live: Endpoint, other: ModelVersion, tenant: Tenant
) -> None:
    viewer = actor_from_user(factories.make_user("vera@example.org", tenant=tenant, role="viewer"))
    for actor, refusal in ((as_cy, Hidden), (viewer, Forbidden)):
        with pytest.raises(refusal):
            revisions.start_canary(actor, live, other, share=100)
        with pytest.raises(refusal):
            revisions.start_shadow(actor, live, other)
        for act in (revisions.promote_canary, revisions.roll_back, revisions.stop_shadow):
            with pytest.raises(refusal):
                act(actor, live)


def sample(endpoint: Endpoint, revision: object, one: Did, *, ago_s: float = 1) -> None:
    Sample.objects.create(
        endpoint=endpoint, revision=revision, at=timezone.now() - timedelta(seconds=ago_s), seconds=5,
        requests=one.requests, errors=one.errors, latency=list(one.latency),
    )  # fmt: skip


def test_a_failing_canary_is_taken_back_by_itself_and_the_page_can_say_why(
    as_ana: Actor, live: Endpoint, other: ModelVersion
) -> None:
    canary = revisions.start_canary(as_ana, live, other, share=1_000).canary
    Endpoint.objects.update(canary_since=timezone.now() - timedelta(minutes=1))
    sample(live, live.current, did(500))
    sample(live, canary, did(40, errors=40))
    assert revisions.judge_canaries() == []
    sample(live, canary, did(40, errors=40))
    assert [one.pk for one in revisions.judge_canaries()] == [live.pk]
    found = live.reload()
    assert found.canary is None and found.status == EndpointStatus.LIVE
    assert found.rollout_note == (
        "Revision 2 was taken back by itself. 100.0 % of its 80 requests failed; 5 % are allowed."
    )
    assert AuditEntry.objects.filter(action="endpoint.rolled_back", target_id=live.public_id).exists()


def test_why_a_canary_went_is_said_in_the_readers_language() -> None:
    note = canaries.fault(did(500), did(80, errors=40), GUARD)
    slow = canaries.fault(did(500, ms=10), did(100, ms=100), GUARD)
    with translation.override("zh-hans"):
        for why in (note, slow):
            text = said(f"Revision 2 was taken back by itself. {why}")
            assert text.startswith("修订版 2 已自动撤回") and "taken" not in text and "allowed" not in text, (
                text
            )


def test_what_happened_before_the_canary_began_is_not_held_against_it(
    as_ana: Actor, live: Endpoint, other: ModelVersion
) -> None:
    canary = revisions.start_canary(as_ana, live, other, share=1_000).canary
    sample(live, canary, did(80, errors=80), ago_s=60)
    assert revisions.judge_canaries() == []
