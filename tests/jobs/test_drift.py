"""Drift of inputs: counted by the hour, compared with the profile of the training rows, shown and alarmed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from jobs import drift
from jobs.models import AlertRule, Endpoint, InputCount, Sample
from jobs.services import alerts, inputs
from jobs.services.pulses import WorkerWords
from jobs.services.workers import News
from jobs.specs_alerts import AlertSpec
from tenants import permissions
from tenants.actor import Actor
from tenants.errors import Invalid
from tenants.models import Tenant, User
from tests.factories import ApiOf, BrowserOf
from tests.jobs.factories_endpoints import make_endpoint, make_model_version
from trainer import gauges

pytestmark = pytest.mark.django_db

PROFILE = {
    "rows": 1000,
    "gauges": [
        {"input": "age", "what": "value", "edges": [30.0, 40.0], "counts": [300, 400, 280, 20]},
        {"input": "job", "what": "name", "names": ["cook", "clerk"], "counts": [600, 300, 60, 40]},
    ],
}
INTERFACE = {
    "inputs": [{"name": "age", "datatype": "FP32", "shape": [-1]}, {"name": "job", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [], "classes": ["good", "bad"], "sample": {}, "profile": PROFILE,
}  # fmt: skip
SAME = [[300, 400, 280, 20], [600, 300, 60, 40]]
OLDER = [[20, 180, 780, 20], [600, 300, 60, 40]]


@pytest.fixture
def endpoint(as_ana: Actor, tenant: Tenant) -> Endpoint:
    return make_endpoint(as_ana, make_model_version(tenant, interface=INTERFACE), slug="digits")


def count(endpoint: Endpoint, counts: list[list[int]], *, hours_ago: float = 0) -> None:
    """As the keeper does with what a worker told."""
    news = News(batches=1, input_rows=sum(counts[0]), inputs=counts)
    words = [WorkerWords(revision=endpoint.current_id, news=news)]
    inputs.count_inputs(words, timezone.now() - timedelta(hours=hours_ago))


def at(endpoint: Endpoint, query: str = "") -> str:
    return reverse("jobs:endpoint_drift", args=[endpoint.public_id]) + query


def test_distances_of_histograms_are_right() -> None:
    # by hand: cumulated shares .25 .5 1 against .5 .75 1
    assert drift.ks([25, 25, 50], [2, 1, 1]) == pytest.approx(0.25)
    assert drift.ks([25, 25], [0, 0]) is None
    assert drift.ks([10, 10], [10, 10]) == 0
    # by hand: (0.5-0.8) ln(0.5/0.8) + (0.5-0.2) ln(0.5/0.2)
    assert drift.psi_of_bins([80, 20], [50, 50]) == pytest.approx(0.4159, abs=1e-4)
    assert drift.ks_by_chance(100, 100) == pytest.approx(1.358 * 0.141421, abs=1e-5)


def test_the_web_and_the_engine_name_scripts_alike() -> None:
    assert inputs.SCRIPTS == gauges.SCRIPTS
    assert [*inputs.SCRIPTS, "digits", "space", "signs"] == list(gauges.KINDS)


def test_what_a_worker_tells_is_the_difference_to_what_it_told_before() -> None:
    first = News.from_json(json.dumps(
        {"batches": 3, "rows": 9, "classes": {"a": 9}, "inputs": {"rows": 5, "counts": [[2, 3]]}}))  # fmt: skip
    then = News.from_json(json.dumps(
        {"batches": 4, "rows": 12, "classes": {"a": 9, "b": 3}, "inputs": {"rows": 8, "counts": [[2, 6]]}}))  # fmt: skip
    assert first.since(News()) == first
    assert then.since(first) == News(batches=1, classes={"b": 3}, input_rows=3, inputs=[[0, 3]])
    old = News.from_json('{"batches": 1, "rows": 1, "classes": {}}')  # a bundle without a profile
    assert old.since(News()) == News(batches=1, inputs=[])
    tired = News.from_json('{"batches": 6, "rows": 20, "classes": {"a": 11}}')  # gave up its inputs midway
    assert tired.since(then) == News(batches=2, classes={"a": 2}, inputs=())


def test_counts_are_added_up_by_the_hour(endpoint: Endpoint) -> None:
    count(endpoint, SAME, hours_ago=1)
    count(endpoint, SAME)
    count(endpoint, OLDER)
    now, before = InputCount.objects.order_by("-hour")
    assert (now.rows, before.rows) == (2000, 1000)
    assert now.counts[0] == [320, 580, 1060, 40] and before.counts == SAME
    inputs.count_inputs([WorkerWords(revision=endpoint.current_id, news=News(batches=3))], timezone.now())
    assert InputCount.objects.count() == 2, "a worker without a profile counts nothing"
    InputCount.objects.filter(pk=before.pk).update(hour=timezone.now() - timedelta(days=40))
    assert inputs.forget_old_counts() == 1


def test_inputs_like_those_of_training_are_no_drift_and_others_are(endpoint: Endpoint) -> None:
    count(endpoint, SAME)
    found = inputs.drift_of(endpoint.current, window=timedelta(hours=1))
    assert found.rows == 1000 and found.enough
    assert [one.tone for one in found.gauges] == ["ok", "ok"]
    assert found.gauges[0].psi == pytest.approx(0)
    count(endpoint, OLDER)
    count(endpoint, OLDER)
    found = inputs.drift_of(endpoint.current, window=timedelta(hours=1))
    age, job = found.gauges
    assert (age.input, age.verdict, job.verdict) == ("age", "Another population", "As trained")
    assert age.ks is not None and age.ks_by_chance is not None and age.ks > 3 * age.ks_by_chance
    assert job.ks is None, "names have no order"
    assert [one.label for one in age.bins] == ["< 30", "30 – 40", "≥ 40", "missing"]
    assert [one.label for one in job.bins] == ["cook", "clerk", "all others", "missing"]
    assert sum(one.live for one in age.bins) == pytest.approx(1)


def test_hours_before_the_window_do_not_count(endpoint: Endpoint) -> None:
    count(endpoint, OLDER, hours_ago=30)
    count(endpoint, SAME)
    day = inputs.drift_of(endpoint.current, window=timedelta(days=1))
    week = inputs.drift_of(endpoint.current, window=timedelta(days=7))
    assert (day.rows, week.rows) == (1000, 2000)
    assert day.highest.psi < week.highest.psi


def test_the_page_shows_both_drifts_and_every_bin_as_a_table(
    browser_of: BrowserOf, ana: User, endpoint: Endpoint
) -> None:
    browser = browser_of(ana)
    page = browser.get(at(endpoint)).content.decode()
    assert "Fewer than 200 rows" in page and "Too few rows" in page
    data = endpoint.current.version.dataset_version
    data.profile = {"columns": [{"name": "label", "top": [["good", 800], ["bad", 200]]}]}
    data.save()
    Sample.objects.create(
        endpoint=endpoint, revision=endpoint.current, at=timezone.now(), seconds=5, requests=10,
        classes={"good": 20, "bad": 180},
    )  # fmt: skip
    count(endpoint, OLDER)
    page = browser.get(at(endpoint, "?hours=1")).content.decode()
    assert "Another population" in page and "30 – 40" in page and 'class="histogram"' in page
    assert "200 predictions" in page
    assert at(endpoint) in browser.get(endpoint.get_absolute_url()).content.decode()
    assert browser.get(at(endpoint, "?hours=many")).status_code == 200


def test_a_model_of_before_says_so(browser_of: BrowserOf, as_ana: Actor, ana: User, tenant: Tenant) -> None:
    old = {key: value for key, value in INTERFACE.items() if key != "profile"}
    version = make_model_version(tenant, name="old", interface=old)
    endpoint = make_endpoint(as_ana, version, slug="old", name="Old")
    page = browser_of(ana).get(at(endpoint)).content.decode()
    assert "This version tells nothing of its training rows" in page
    assert inputs.highest_psi(endpoint, window=timedelta(hours=1), fewest=1) is None


def test_a_guest_sees_how_far_and_not_what_the_training_rows_looked_like(
    browser_of: BrowserOf, api_of: ApiOf, cy: User, ana: User, endpoint: Endpoint
) -> None:
    count(endpoint, OLDER)
    permissions.grant("endpoints.invoke", endpoint, to=cy)
    page = browser_of(cy).get(at(endpoint))
    assert page.status_code == 200
    assert "Another population" in page.content.decode() and "clerk" not in page.content.decode()
    base = f"/api/v1/endpoints/{endpoint.public_id}/drift"
    told = browser_of(cy).get(base).json()
    assert told["inputs"][0]["reading"] == "bad" and "bins" not in told["inputs"][0]
    mine = api_of(ana).get(f"{base}?hours=5").json()
    assert mine["rows"] == 1000 and mine["hours"] == 5 and mine["enough_rows"]
    assert [one["input"] for one in mine["inputs"]] == ["age", "job"]
    assert mine["inputs"][1]["bins"][0] == {"bin": "cook", "trained": 0.6, "live": 0.6}
    assert api_of(ana).get(f"{base}?hours=²").json()["hours"] == 24


# -- alerts --------------------------------------------------------------------------------------------------


def rule(**more: Any) -> AlertSpec:
    usual = {"name": "Other people", "metric": "input_drift", "threshold": 0.25, "window_s": 3600,
             "min_requests": 200, "emails": ["ana@example.org"]}  # fmt: skip
    return AlertSpec.parse({**usual, **more})


def test_inputs_far_from_the_training_rows_are_told(as_ana: Actor, endpoint: Endpoint) -> None:
    all_of_them, _ = alerts.create_rule(as_ana, endpoint, rule())
    ages, _ = alerts.create_rule(as_ana, endpoint, rule(class_name="age"))
    jobs, _ = alerts.create_rule(as_ana, endpoint, rule(class_name="job"))
    count(endpoint, [[10, 20, 60, 0], [90, 0, 0, 0]])
    assert alerts.look_at_alerts() == 0 and all_of_them.reload().value is None, "ninety rows are too few"
    InputCount.objects.all().delete()
    count(endpoint, SAME)
    assert alerts.look_at_alerts() == 0 and all_of_them.reload().value < 0.1
    InputCount.objects.all().delete()
    count(endpoint, OLDER)
    assert alerts.look_at_alerts() == 2
    assert ages.reload().firing_since and not jobs.reload().firing_since
    assert "Drift of inputs (highest PSI) “age”" in ages.events.get().text


def test_an_input_the_model_does_not_have_cannot_be_watched(as_ana: Actor, endpoint: Endpoint) -> None:
    with pytest.raises(Invalid, match="no input wage"):
        alerts.create_rule(as_ana, endpoint, rule(class_name="wage"))
    assert not AlertRule.objects.exists()
