"""Usage told from outside: once, exactly, and with a word for everything that is refused."""

from __future__ import annotations

import io
import itertools
import json
import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, close_old_connections, connection, transaction
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.models import BillingAccount, Meter, UsageDay, UsageEvent, UsageHour
from billing.months import Month
from billing.seed import seed
from billing.services import ingest, metering, prices, reports, rollups
from tenants.errors import Forbidden
from tenants.http import actor_from_user
from tests.factories import make_tenant

PATH = "/api/v1/usage/events"
MARCH = Month(2026, 3)
numbers = itertools.count()


def event(key="k1", quantity="5", **fields):
    return {"key": key, "meter": "endpoint.requests", "quantity": quantity, "subject": "ep_1", **fields}


def send(api, *events, source="farm"):
    return api.post(PATH, {"source": source, "events": list(events)})


def statuses(response):
    return [one["status"] for one in response.json()["results"]]


def pointers(response):
    return [fault["pointer"] for one in response.json()["results"] for fault in one["errors"]]


@pytest.fixture
def api(api_of, ana, clock):
    return api_of(ana)


def stored(tenant):
    return UsageEvent.objects.filter(tenant=tenant)


def test_a_batch_is_stored_and_its_replay_is_a_success_that_adds_nothing(api, tenant):
    batch = [event(f"k{n}", str(n)) for n in range(1, 4)]
    first = send(api, *batch)
    assert (first.status_code, statuses(first)) == (200, ["stored"] * 3)
    again = send(api, *batch)
    assert (again.status_code, statuses(again)) == (200, ["duplicate"] * 3)
    assert again.json()["duplicate"] == 3 and [one["code"] for one in again.json()["results"]] == [200] * 3
    assert stored(tenant).aggregate(sum=Sum("quantity"))["sum"] == 6
    assert reports.month_to_date(tenant) == Decimal("0.02") * 6 / 1000


def test_the_same_key_with_another_payload_is_a_conflict_and_the_first_stays(api, tenant):
    send(api, event(quantity="5"))
    for other in (event(quantity="6"), event(subject="ep_2"), event(labels={"team": "vision"})):
        answer = send(api, other)
        assert (answer.status_code, statuses(answer)) == (207, ["conflict"])
        assert answer.json()["results"][0]["code"] == 409 and pointers(answer) == ["/events/0/key"]
    assert stored(tenant).get().quantity == 5


def test_the_same_key_of_two_tenants_and_of_two_sources_are_different_usage(api, api_of, cy, tenant):
    assert statuses(send(api, event())) == ["stored"]
    assert statuses(send(api_of(cy), event())) == ["stored"]
    assert statuses(send(api, event(), source="other-farm")) == ["stored"]
    assert stored(tenant).count() == 2


def test_five_hundred_events_with_three_repeats_and_one_bad_store_what_is_new_once(api, tenant):
    batch = [event(f"k{n}") for n in range(496)]
    batch += [event("k0"), event("k1"), event("k2", quantity="7"), event("bad", quantity="-1")]
    answer = send(api, *batch)
    counts = {name: answer.json()[name] for name in ("stored", "duplicate", "conflict", "invalid")}
    assert answer.status_code == 207
    assert counts == {"stored": 496, "duplicate": 2, "conflict": 1, "invalid": 1}
    assert stored(tenant).count() == 496
    again = send(api, *batch).json()
    assert (again["stored"], stored(tenant).count()) == (0, 496)


def test_a_repeat_in_a_batch_is_judged_by_what_is_stored_not_by_its_neighbour(api, tenant):
    send(api, event(quantity="5"))
    assert statuses(send(api, event(quantity="6"), event(quantity="5"), event(quantity="6"))) == [
        "conflict", "duplicate", "conflict",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("quantity", "code"),
    [
        ("-1", "negative"), (-0.5, "negative"), ("NaN", "invalid"), ("Infinity", "invalid"),
        ("1e999", "too_large"), ("1e99999999999999999999", "invalid"), ("１２", "invalid"),
        (10**26, "too_large"), ("1e-13", "too_fine"), (True, "invalid"), (None, "invalid"), ("", "invalid"),
        ("1_000", "invalid"), (" 1", "invalid"), ("0x10", "invalid"), ([], "invalid"), ("9" * 5000, "too_large"),
    ],
)  # fmt: skip
def test_a_quantity_that_is_no_honest_number_is_refused_in_place(api, tenant, quantity, code):
    answer = send(api, event("good"), event("bad", quantity=quantity))
    assert (answer.status_code, statuses(answer)) == (207, ["stored", "invalid"])
    (fault,) = answer.json()["results"][1]["errors"]
    assert (fault["pointer"], fault["code"]) == ("/events/1/quantity", code)
    assert stored(tenant).count() == 1


def test_numbers_that_json_itself_does_not_know_are_refused_in_place(api, tenant):
    for raw in ("NaN", "Infinity", "-Infinity", "1e400"):
        body = '{"source": "farm", "events": [{"key": "k", "meter": "storage", "subject": "ds_1", "quantity": %s}]}'
        answer = api.post(PATH, body % raw, content_type="application/json")
        assert (answer.status_code, pointers(answer)) == (207, ["/events/0/quantity"])
    assert not stored(tenant).exists()


def test_a_number_keeps_every_digit_on_the_way_in(api, tenant):
    body = (
        '{"source": "farm", "events": [{"key": "k", "meter": "storage", "subject": "ds_1",'
        ' "quantity": 123456789012345678.123456789012}]}'
    )
    assert statuses(api.post(PATH, body, content_type="application/json")) == ["stored"]
    assert stored(tenant).get().quantity == Decimal("123456789012345678.123456789012")


def test_a_trillion_tokens_of_a_meter_added_as_data_cost_exactly_what_they_should(
    api, tenant, browser_of, staff
):
    staff.is_superuser = True
    staff.save()
    browser = browser_of(staff)
    meter = {"key": "tokens", "title": "Tokens", "unit": "token", "natural_unit": "million tokens",
             "natural_size": "1000000"}  # fmt: skip
    assert browser.post("/admin/billing/meter/add/", meter).status_code == 302
    assert statuses(send(api, event(meter="tokens", quantity=10**12))) == ["invalid"]  # no price yet
    prices.set_price(actor_from_user(staff), meter="tokens", unit_price=Decimal("0.15"))
    assert statuses(send(api, event(meter="tokens", quantity=10**12))) == ["stored"]
    assert reports.month_to_date(tenant) == Decimal(150000)
    # what was counted in a unit is never counted in another
    assert browser.post("/admin/billing/meter/tokens/change/", {**meter, "unit": "x"}).status_code == 403
    assert Meter.objects.get(key="tokens").unit == "token"


def test_times_are_the_databases_business(api, tenant, clock):
    now = clock.now()

    def at(**delta):
        return event(f"k{next(numbers)}", event_time=(now + timedelta(**delta)).isoformat())

    answer = send(
        api, at(minutes=4), at(minutes=6), at(days=-34), at(days=-36), event("n", event_time="2026-03-10T12:00"),
        event("m", event_time="soon"), event("o", event_time=12), event("p", event_time="0001-01-01T00:00:00+23:59"),
    )  # fmt: skip
    codes = [one["errors"][0]["code"] if one["errors"] else one["status"] for one in answer.json()["results"]]
    assert codes == ["stored", "future", "stored", "too_late", "naive", "invalid", "invalid", "too_late"]
    assert {fault.rsplit("/", 1)[1] for fault in pointers(answer)} == {"event_time"}


def test_a_senders_clock_decides_nothing_where_no_time_is_stated(api, tenant, clock):
    send(api, event())
    clock.on(hours=2)
    assert statuses(send(api, event())) == ["duplicate"]  # a retry, later
    assert stored(tenant).get().event_time == clock.now() - timedelta(hours=2)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"meter": "moon"}, "meter"), ({"meter": 5}, "meter"), ({"sku": "gold"}, "sku"), ({"subject": ""}, "subject"),
        ({"subject": "a b"}, "subject"), ({"key": ""}, "key"), ({"key": "k\u0000"}, "key"), ({"key": "钥匙"}, "key"),
        ({"subject_title": "a\u0000b"}, "subject_title"), ({"user": "\ud800"}, "user"), ({"labels": []}, "labels"),
        ({"labels": {"team": ""}}, "labels/team"), ({"labels": {str(n): "x" for n in range(9)}}, "labels"),
        ({"quantiti": 1}, "quantiti"), ({"a/b": 1}, "a~1b"),
    ],
)  # fmt: skip
def test_every_fault_has_a_pointer(api, tenant, fields, pointer):
    body = json.dumps({"source": "farm", "events": [event(**{"key": "k", **fields})]})
    answer = api.post(PATH, body, content_type="application/json")
    assert (answer.status_code, pointers(answer)) == (207, [f"/events/0/{pointer}"])
    assert not stored(tenant).exists()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], "/"), ({}, "/source"), ({"source": "Farm", "events": [{}]}, "/source"),
        ({"source": "farm", "events": []}, "/events"), ({"source": "farm", "events": [{}] * 1001}, "/events"),
        ({"source": "farm", "events": {}}, "/events"), ({"source": "farm", "events": [{}], "evnts": 1}, "/evnts"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused_whole(api, body, pointer):
    answer = api.post(PATH, body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_body_that_is_no_json_is_a_bad_request(api):
    for body in (b"{", b"\xff\xfe", b"[" * 100_000):
        assert api.post(PATH, body, content_type="application/json").status_code == 400


def test_only_owners_and_admins_record_usage_and_tokens_need_the_scope(tenant, ana, ben, api_of, as_ben):
    assert send(api_of(ben), event()).status_code == 403
    assert send(api_of(ana, scopes=["billing:read"]), event()).status_code == 403
    assert send(api_of(ana, scopes=["billing:write"]), event()).status_code == 200
    with pytest.raises(Forbidden):
        ingest.ingest(as_ben, source="farm", events=[event()])


def test_nobody_outside_takes_a_key_away_from_our_own_meters(api, tenant, clock, hold):
    held = hold()
    key = f"alloc:{held.public_id}:1"
    assert statuses(send(api, event(key), source="alloc")) == ["stored"]
    clock.on(hours=1)
    metering.close_allocation(held.pk, fence="f1", reason="done")
    assert stored(tenant).get(source="alloc").quantity == 3600


def test_hours_hold_what_the_events_hold_by_subject_user_and_label(api, tenant, clock):
    clock.to("2026-03-10 12:59:59")
    send(
        api,
        event("a", "1", user="ana@example.org", labels={"team": "vision"}),
        event("b", "2", user="ana@example.org", labels={"team": "vision"}),
        event("c", "4", labels={"team": "speech"}),
        event("d", "8", event_time="2026-03-10T13:00:00Z"),
    )
    rows = {
        (row.hour.hour, row.user_label, row.labels.get("team")): (row.quantity, row.events)
        for row in UsageHour.objects.filter(tenant=tenant)
    }
    assert rows == {
        (12, "ana@example.org", "vision"): (3, 2),
        (12, "", "speech"): (4, 1),
        (13, "", None): (8, 1),
    }
    assert sum(UsageDay.objects.filter(tenant=tenant).values_list("quantity", flat=True)) == 15
    assert rollups.differences(tenant, MARCH.start, MARCH.end) == []


def test_rebuilt_sums_are_the_sums_that_were_kept(api, tenant, clock):
    send(api, *[event(f"k{n}", str(n), labels={"n": str(n % 3)}) for n in range(50)])
    fields = ("hour", "price", "subject", "user_label", "labels", "quantity", "events", "through_id")
    before = list(UsageHour.objects.order_by("id").values_list(*fields))
    days = list(UsageDay.objects.values_list("day", "price", "subject", "quantity"))
    UsageHour.objects.filter(labels={"n": "1"}).update(quantity=999)
    assert len(rollups.differences(tenant, MARCH.start, MARCH.end)) == 1
    assert rollups.rebuild(tenant, MARCH.start, MARCH.end) == 3
    after = list(UsageHour.objects.order_by("id").values_list(*fields))
    assert sorted(after, key=str) == sorted(before, key=str)
    assert list(UsageDay.objects.values_list("day", "price", "subject", "quantity")) == days
    assert rollups.differences(tenant, MARCH.start, MARCH.end) == []


def test_a_command_names_sums_that_differ_and_mends_them_when_told(api, tenant, clock):
    send(api, event(quantity="5"))
    UsageHour.objects.update(quantity=999)

    def run(*more: str) -> str:
        out = io.StringIO()
        call_command("rebuild_usage_sums", "--month", "2026-03", *more, stdout=out)
        return out.getvalue()

    assert "lab: 2026-03-10 12:00 ep_1: events 5" in run() and "1 hours differ" in run()
    assert UsageHour.objects.get().quantity == 999  # it only looked
    run("--write")
    assert UsageHour.objects.get().quantity == 5 and "0 hours differ" in run()
    for wrong in (["--month", "soon"], ["--tenant", "nobody"]):
        with pytest.raises(CommandError):
            call_command("rebuild_usage_sums", *wrong)


pieces = st.lists(
    st.tuples(st.sampled_from("abc"), st.decimals(0, 10**6, places=6), st.integers(0, 40 * 3600)),
    min_size=1,
    max_size=30,
)


@given(pieces=pieces, order=st.randoms())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_any_repetition_gives_the_same_sums(db, clock, pieces, order):
    totals = []
    for run in range(2):
        tenant = make_tenant("Lab", slug=f"lab-{next(numbers)}")
        clock.to("2026-03-20 00:00:00")
        batch = [
            event(
                f"k{n}",
                str(quantity),
                subject=subject,
                event_time=(clock.now() - timedelta(seconds=ago)).isoformat(),
            )
            for n, (subject, quantity, ago) in enumerate(pieces)
        ]
        if run:
            order.shuffle(batch)
            batch += batch[:5]
        for start in range(0, len(batch), 7):
            ingest.record_batch(tenant, source="t", events=batch[start : start + 7])
        assert rollups.differences(tenant, MARCH.start, MARCH.end) == []
        hours = UsageHour.objects.filter(tenant=tenant).order_by("hour", "subject")
        totals.append(list(hours.values_list("hour", "subject", "quantity", "events")))
    assert totals[0] == totals[1]
    assert sum(row[2] for row in totals[0]) == sum(quantity for _subject, quantity, _ago in pieces)


@pytest.mark.django_db(transaction=True)
def test_eight_senders_of_the_same_batch_store_it_once_and_never_lock_each_other_out():
    seed()
    tenant = make_tenant("Lab")
    batch = [event(f"k{n}", "1", subject=f"ep_{n % 5}") for n in range(200)]
    gate, found = threading.Barrier(8), []

    def run(number: int) -> None:
        gate.wait(timeout=60)
        mine = batch[number * 20 :] + batch[: number * 20]
        try:
            found.append(ingest.record_batch(tenant, source="t", events=mine))
        finally:
            close_old_connections()
            connection.close()

    threads = [threading.Thread(target=run, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    said = [one.outcome for results in found for one in results]
    assert said.count(ingest.Status.STORED) == 200 and said.count(ingest.Status.DUPLICATE) == 1400
    assert stored(tenant).count() == 200
    assert UsageHour.objects.filter(tenant=tenant).aggregate(sum=Sum("quantity"))["sum"] == 200


def test_what_events_of_a_batch_say_alike_is_checked_for_each_type_of_value(api, tenant):
    """A JSON number equals the text of its digits; known from a good event before it, it is refused all the same."""
    good = {"labels": {"team": "5"}, "subject": "5", "subject_title": "5", "user": "5"}
    wrong = (
        {"labels": {"team": 5}},
        {"subject": 5},
        {"subject_title": 5},
        {"user": 5},
        {"labels": []},
        {"user": None},
    )
    answer = send(
        api, event("good", **good), *[event(f"k{n}", **{**good, **one}) for n, one in enumerate(wrong)]
    )
    assert statuses(answer) == ["stored"] + ["invalid"] * 6
    assert [one.rsplit("/", 1)[1] for one in pointers(answer)] == [
        "team", "subject", "subject_title", "user", "labels", "user",
    ]  # fmt: skip


def test_the_first_event_of_a_tenant_makes_the_account_its_months_are_closed_by(api, tenant):
    assert not BillingAccount.objects.filter(tenant=tenant).exists()
    assert statuses(send(api, event())) == ["stored"]
    assert BillingAccount.objects.get(tenant=tenant).currency == "USD"


def test_a_time_is_the_same_however_it_is_written(api, tenant):
    ways = (
        "2026-03-10T11:00:00+00:00", "2026-03-10T11:00:00Z", "2026-03-10T13:00:00+02:00",
        "2026-03-10 11:00:00.000000+00:00", "2026-W11-2T11:00:00+00:00", "20260310T110000+0000",
        "2026-03-10T11:00:00.000000+00:00",
    )  # fmt: skip
    told = [statuses(send(api, event(event_time=one))) for one in ways]
    assert told == [["stored"], *[["duplicate"]] * 6]
    assert statuses(send(api, event(event_time="2026-03-10T11:00:00.000001+00:00"))) == ["conflict"]


def test_the_newest_title_of_a_batch_stays_whatever_comes_before_it_in_the_alphabet(api, tenant):
    send(api, event("k1", subject_title="Zeta"), event("k2", subject_title="alpha"))
    titles = [*UsageHour.objects.values_list("subject_title"), *UsageDay.objects.values_list("subject_title")]
    assert titles == [("alpha",), ("alpha",)]
    send(api, event("k3", subject_title=""))
    assert UsageHour.objects.get().subject_title == UsageDay.objects.get().subject_title == ""


@pytest.mark.parametrize("wrong", ["meter_id = 'storage'", "sku = 'gold'", "price_id = 0", "tenant_id = 0"])
def test_the_database_refuses_usage_whose_price_tenant_meter_or_sku_is_not_what_it_says(api, tenant, wrong):
    send(api, event())
    column, value = wrong.split(" = ")
    fields = (
        "tenant_id, source, key, meter_id, sku, price_id, quantity, event_time, ended_at, created_at, subject, "
        "subject_title, user_label, dims, payload_hash"
    )
    copied = fields.replace("key", "'other'", 1).replace(column, value, 1)
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"insert into billing_usageevent ({fields}) select {copied} from billing_usageevent")
        cursor.execute("set constraints all immediate")
    assert stored(tenant).count() == 1


def test_a_stranger_records_into_their_own_tenant_only(api_of, cy, tenant):
    send(api_of(cy), event())
    assert not stored(tenant).exists()
