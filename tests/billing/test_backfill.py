"""Old usage: only staff bring it in, once, with a reason, and it lands on the next invoice as what it is."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.models import UsageEvent
from billing.months import Month
from billing.services import documents, invoices, metering, reconcile
from tenants.models import AuditEntry
from tests.factories import make_tenant

PATH = "/api/v1/usage/backfill"


def event(key="k1", quantity="1000000", at="2026-03-05T00:00:00Z", **fields):
    return {
        "key": key, "meter": "endpoint.requests", "quantity": quantity, "subject": "ep_1", "event_time": at, **fields
    }  # fmt: skip


def send(api, whose, *events, **changes):
    body = {
        "tenant": whose.public_id,
        "source": "farm",
        "reason": "The exporter was down",
        "events": list(events),
    }
    return api.post(PATH, {**body, **changes})


@pytest.fixture
def api(api_of, staff, clock):
    return api_of(staff)


@pytest.fixture
def march(tenant, clock, as_staff):
    """March is invoiced with 2.00; it is the first of June now."""
    clock.to("2026-03-10 12:00:00")
    use = {"meter": "endpoint.requests", "source": "t", "subject": "ep_1", "subject_title": "digits"}
    metering.record_usage(tenant, quantity=100_000, key="a", **use)
    clock.to("2026-04-01 02:00:00")
    made = invoices.finalize(as_staff, tenant, Month(2026, 3))
    clock.to("2026-06-01 12:00:00")
    return made


def test_old_usage_is_a_correction_on_the_next_invoice_at_its_own_price_and_time(
    api, api_of, ana, tenant, clock, as_staff, march
):
    refused = api_of(ana).post("/api/v1/usage/events", {"source": "farm", "events": [event()]})
    assert refused.json()["results"][0]["errors"][0]["code"] == "too_late"
    before = march.content_hash
    answer = send(api, tenant, event())
    assert (answer.status_code, answer.json()["stored"]) == (200, 1)
    clock.to("2026-07-01 02:00:00")
    made = invoices.finalize(as_staff, tenant, Month(2026, 6))
    (line,) = made.lines.all()
    assert (line.late, line.quantity, line.amount) == (True, 1_000_000, Decimal("20.00"))
    assert f"{line.started_at:%Y-%m-%d}" == "2026-03-05"
    march.refresh_from_db()
    assert march.content_hash == before == documents.content_hash(documents.stored(march))
    assert reconcile.check(tenant, by_hour=True) == []


def test_it_is_audited_with_its_reason_where_the_tenant_can_read_it(api, tenant, march, staff):
    send(api, tenant, event(), event("k2"), event("k3", quantity="-1"))
    entry = AuditEntry.objects.get(action="usage.backfilled")
    assert (entry.tenant, entry.actor_user_id) == (tenant, staff.pk)
    assert entry.details == {"source": "farm", "reason": "The exporter was down", "stored": 2, "refused": 1}


def test_the_same_batch_again_adds_nothing_and_writes_no_second_entry(api, api_of, ana, tenant, clock, march):
    recent = event("recent", at="2026-05-31T00:00:00Z")
    assert (
        api_of(ana).post("/api/v1/usage/events", {"source": "farm", "events": [recent]}).json()["stored"] == 1
    )
    # what was told in time and is in the batch again is known
    assert send(api, tenant, event(), recent).json()["duplicate"] == 1
    again = send(api, tenant, event(), recent).json()
    assert (again["stored"], again["duplicate"]) == (0, 2)
    changed = send(api, tenant, event(quantity="7"))
    assert (changed.status_code, changed.json()["conflict"]) == (207, 1)
    assert AuditEntry.objects.filter(action="usage.backfilled").count() == 1
    assert UsageEvent.objects.filter(tenant=tenant, source="api:farm").count() == 2


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"tenant": "ten_nobody"}, "/tenant"),
        ({"tenant": 7}, "/tenant"),
        ({"tenant": "ten_\0"}, "/tenant"),
        ({"reason": "a\0b"}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": "  \n "}, "/reason"),
        ({"reason": "x" * 201}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"source": "No Such"}, "/source"),
        ({"events": []}, "/events"),
        ({"because": "x"}, "/because"),
    ],
)
def test_a_backfill_that_does_not_say_what_of_whom_and_why_is_refused_whole(api, tenant, changes, pointer):
    answer = send(api, tenant, event(), **changes)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert not UsageEvent.objects.exists()


def test_times_that_nobody_can_mean_are_refused_beside_the_good_ones(api, tenant, march):
    answer = send(
        api, tenant, event("good"), event("year-26", at="0026-03-05T00:00:00Z"), event("old", at="2022-03-05T00:00:00Z"),
        event("ahead", at="2026-06-01T12:06:00Z"), event("naive", at="2026-03-05T00:00:00"),
    )  # fmt: skip
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [one["errors"][0]["code"] if one["errors"] else one["status"] for one in results] == [
        "stored", "too_late", "too_late", "future", "naive",
    ]  # fmt: skip


def test_only_staff_backfill_and_their_token_needs_the_scope(api_of, staff, ana, ben, tenant, clock):
    other = make_tenant("Other")
    for person in (ana, ben):
        for whose in (tenant, other):
            assert send(api_of(person), whose, event()).status_code == 403
    assert send(api_of(staff, scopes=["billing:read"]), tenant, event()).status_code == 403
    assert not UsageEvent.objects.exists()
