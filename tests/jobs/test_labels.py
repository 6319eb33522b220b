"""Labels of a job: what is taken, where they are shown, and that its costs and budgets go by them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from django.urls import reverse

from billing import clock, seed
from billing.errors import BudgetReached
from billing.models import Allocation
from billing.services import budgets, explorer, exports, metering, scopes
from billing.services.explorer import Question
from billing.services.metering import Verdict
from jobs import compute, spec_labels
from jobs.models import Attempt, Job
from jobs.services.schedule import schedule_once
from jobs.specs import JobSpec
from jobs.states import JobStatus
from tenants.errors import Invalid
from tests.jobs.factories_jobs import FakeCompute, make_job, make_version, spec_data
from tests.jobs.test_jobs_pages import posted

VISION = {"team": "vision", "project": "churn 2"}


@pytest.fixture(autouse=True)
def machine(db: None) -> Iterator[FakeCompute]:
    seed.seed()
    with compute.use(FakeCompute(processes=2)) as fake:
        yield fake


@pytest.fixture
def flowers(tenant):
    return make_version(tenant)


# -- the spec ------------------------------------------------------------------------------------------------
def test_labels_are_kept_in_the_order_of_their_keys_and_survive_json(as_ben, flowers):
    spec = JobSpec.parse(as_ben, spec_data(flowers, labels={"team": " vision ", "cost-center": "ü 7"}))
    assert list(spec.labels.items()) == [("cost-center", "ü 7"), ("team", "vision")]
    assert JobSpec.parse(as_ben, json.loads(json.dumps(spec.to_dict()))) == spec
    assert JobSpec.parse(as_ben, spec_data(flowers)).labels == {}


@pytest.mark.parametrize(
    ("labels", "pointer", "words"),
    [
        ({"Team": "x"}, "/labels/Team", "begins with a small letter"),
        ({"1st": "x"}, "/labels/1st", "begins with a small letter"),
        ({"a/b": "x"}, "/labels/a~1b", "begins with a small letter"),
        ({"k" * 32: "x"}, f"/labels/{'k' * 32}", "1 to 31"),
        ({"ｔeam": "x"}, "/labels/ｔeam", "begins with a small letter"),
        ({"team": ""}, "/labels/team", "team needs a value"),
        ({"team": "x" * 64}, "/labels/team", "1 to 63"),
        ({"team": "a\nb"}, "/labels/team", "printable"),
        ({"team": "a\x00b"}, "/labels/team", "printable"),
        ({"team": "a,b=c"}, "/labels/team", "without a comma"),
        ({"team": 7}, "/labels/team", "team needs a value"),
        ({"team": None}, "/labels/team", "team needs a value"),
        (["team"], "/labels", "object"),
        ({f"k{n}": "x" for n in range(11)}, "/labels", "at most 10"),
    ],
)
def test_what_is_no_label_is_refused_where_it_stands(as_ben, flowers, labels, pointer, words):
    with pytest.raises(Invalid) as caught:
        JobSpec.parse(as_ben, spec_data(flowers, labels=labels))
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert words in caught.value.faults[0].detail


def test_the_longest_labels_are_taken(as_ben, flowers):
    labels = {f"{'k' * 30}{n}": "v" * 63 for n in range(10)}
    assert JobSpec.parse(as_ben, spec_data(flowers, labels=labels)).labels == labels


# -- pages and the API ---------------------------------------------------------------------------------------
def test_the_form_takes_labels_as_a_person_writes_them_and_shows_them_again(browser_of, ben, flowers):
    client = browser_of(ben)
    text = " team = vision, project=churn 2 ,"
    assert client.post(reverse("jobs:job_new"), posted(flowers, labels=text)).status_code == 302
    job = Job.objects.get()
    assert job.spec["labels"] == {"project": "churn 2", "team": "vision"}
    page = client.get(job.get_absolute_url()).content.decode()
    assert "team=vision" in page and f"{reverse('jobs:job_list')}?label=project%3Dchurn%202" in page
    clone = client.get(reverse("jobs:job_clone", args=[job.public_id])).content.decode()
    assert 'value="project=churn 2, team=vision"' in clone


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vision", "vision needs a value"),
        ("Team=vision", "begins with a small letter"),
        ("team=a, team=b", "team is there twice"),
    ],
)
def test_the_form_says_at_the_field_what_is_no_label(browser_of, ben, flowers, text, words):
    answer = browser_of(ben).post(reverse("jobs:job_new"), posted(flowers, labels=text))
    assert answer.status_code == 422 and words in answer.content.decode()
    assert 'id="id_labels_error"' in answer.content.decode()
    assert not Job.objects.exists()


def test_the_list_is_narrowed_to_a_label_on_the_page_and_over_the_api(
    browser_of, api_of, ben, as_ben, flowers
):
    make_job(as_ben, flowers, name="Sees", labels=VISION)
    make_job(as_ben, flowers, name="Reads", labels={"team": "text"})
    make_job(as_ben, flowers, name="Plain")
    client, api = browser_of(ben), api_of(ben)
    page = client.get(reverse("jobs:job_list")).content.decode()
    assert all(f"<option>{one}</option>" in page for one in ("project=churn 2", "team=text", "team=vision"))
    for label, names in (
        ("team=vision", ["Sees"]),
        ("project=churn 2", ["Sees"]),
        ("team", ["Reads", "Sees"]),
        ("team=speech", []),
        ("team=vision'\"", []),
        ("Team=vision", []),
    ):
        rows = api.get("/api/v1/jobs", {"label": label}).json()["data"]
        assert sorted(row["name"] for row in rows) == names, label
        page = client.get(reverse("jobs:job_list"), {"label": label}).content.decode()
        assert all((name in page) == (name in names) for name in ("Sees", "Reads", "Plain")), label
    assert api.get("/api/v1/jobs", {"label": "project=churn 2"}).json()["data"][0]["labels"] == VISION
    assert api.get("/api/v1/jobs", {"labels": "team"}).status_code == 400
    kept = client.get(reverse("jobs:job_list"), {"label": "team=text", "status": "queued"}).content.decode()
    assert "Reads" in kept and "label=team%3Dtext" in kept  # the chips of statuses keep the label


def test_another_tenants_labels_are_not_offered(browser_of, cy, as_ben, flowers):
    make_job(as_ben, flowers, labels=VISION)
    assert "vision" not in browser_of(cy).get(reverse("jobs:job_list")).content.decode()


def test_the_api_takes_labels_and_names_a_bad_one(api_of, ben, flowers):
    made = api_of(ben).post("/api/v1/jobs", spec_data(flowers, labels=VISION))
    assert (made.status_code, made.json()["labels"]) == (201, VISION)
    bad = api_of(ben).post("/api/v1/jobs", spec_data(flowers, labels={"Team": "x"}))
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/labels/Team")


def test_labels_are_written_and_read_alike():
    assert dict(spec_labels.split(spec_labels.written(VISION))) == VISION
    assert spec_labels.split(" , ") == []


# -- money ---------------------------------------------------------------------------------------------------
def place(actor, version, labels, *, lease_s=3600) -> Attempt:
    job = make_job(actor, version, labels=labels)
    assert schedule_once() == 1
    Allocation.objects.filter(subject=job.public_id).update(lease_s=lease_s)
    return Attempt.objects.select_related("job").get(job=job)


def work(attempt: Attempt, monkeypatch, *, hours: float) -> Verdict:
    """Time passes for one attempt; returns what its beat says."""
    now = clock.now() + timedelta(hours=hours)
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: now)
        return [metering.beat(one, fence=attempt.fence) for one in attempt.allocations][-1]


def test_costs_are_told_by_label_and_focus_has_them_as_tags(as_ben, as_ana, flowers, monkeypatch):
    sees, reads = place(as_ben, flowers, VISION), place(as_ben, flowers, {"team": "text"})
    today = clock.now().date()
    for attempt, hours in ((sees, 2), (reads, 1)):
        work(attempt, monkeypatch, hours=hours)
    scope, days = scopes.own(as_ana), {"start": today, "end": today + timedelta(days=2)}
    found = explorer.explore(scope, Question(**days, by="label", label="team"))
    costs = {row.parts[0].label: round(row.amounts.net, 2) for row in found.rows}
    assert costs == {"vision": Decimal("0.12"), "text": Decimal("0.06")}
    file = io.StringIO()
    csv.writer(file).writerows(exports.focus_rows(scope, Question(**days)))
    tags = {row[exports.FOCUS.index("Tags")] for row in csv.reader(io.StringIO(file.getvalue()))}
    assert {'{"project": "churn 2", "team": "vision"}', '{"team": "text"}'} <= tags


def test_a_label_budget_that_blocks_refuses_its_jobs_and_no_others(as_ana, as_ben, flowers):
    budgets.set_budget(as_ana, amount=Decimal("0.01"), mode="block_new", scope="label", value="team=vision")
    with pytest.raises(BudgetReached, match="team=vision"):
        make_job(as_ben, flowers, labels=VISION)
    make_job(as_ben, flowers, labels={"team": "text"})
    budgets.set_budget(as_ana, amount=Decimal("0.01"), mode="notify", scope="label", value="team=vision")
    make_job(as_ben, flowers, labels=VISION)  # it only tells


def test_a_label_budget_set_while_a_job_waits_keeps_it_waiting(as_ana, as_ben, flowers):
    job = make_job(as_ben, flowers, labels=VISION)
    budgets.set_budget(as_ana, amount=Decimal("0.01"), mode="block_new", scope="label", value="team=vision")
    assert schedule_once() == 0
    assert job.reload().status == JobStatus.QUEUED and "team=vision" in job.reload().waiting_for


def test_a_label_budget_that_stops_stops_its_jobs_at_the_next_beat_and_no_others(
    as_ana, as_ben, flowers, monkeypatch
):
    sees, reads = place(as_ben, flowers, VISION), place(as_ben, flowers, {"team": "text"})
    budgets.set_budget(as_ana, amount=Decimal("0.05"), mode="stop", scope="label", value="team=vision")
    assert work(sees, monkeypatch, hours=0.5) is Verdict.CONTINUE
    assert work(sees, monkeypatch, hours=1) is Verdict.STOP
    assert work(reads, monkeypatch, hours=2) is Verdict.CONTINUE
    assert budgets.should_stop(as_ana.the_tenant, subject=sees.job.public_id, max_spend=None)
    assert not budgets.should_stop(as_ana.the_tenant, subject=reads.job.public_id, max_spend=None)
