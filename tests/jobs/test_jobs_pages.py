"""Pages and API of jobs: what they show, to whom, and what wrong input gets."""

from __future__ import annotations

import json
import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import seed
from jobs import compute
from jobs.models import Dataset, DatasetVersion, Job
from jobs.services import progress
from jobs.services.jobs import cancel_job, end_job
from jobs.services.schedule import schedule_once
from jobs.states import JobStatus, Reason
from tenants import outbox
from tenants.actor import SYSTEM
from tests import factories
from tests.jobs.factories_jobs import FakeCompute, make_job, make_version, spec_data


@pytest.fixture(autouse=True)
def machine(db):
    seed.seed()
    with compute.use(FakeCompute(processes=2)) as fake:
        yield fake


@pytest.fixture
def flowers(tenant):
    return make_version(tenant)


@pytest.fixture
def job(as_ben, flowers):
    return make_job(as_ben, flowers)


def posted(version, **changes):
    """What a browser sends for the form as it is first shown."""
    data = {
        "name": "From the form", "recipe": "tabular-classification", "dataset": version.public_id,
        "label": "kind",
        "epochs": 3, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0, "optimizer": "adam",
        "holdout": 0.2,
        "seed": 7, "processes": 1, "gpus": 0, "precision": "fp32", "max_minutes": 10, "max_spend": "",
        "methods": ["int8"], "max_accuracy_drop": 0.01, "sparsity": 0.5, "model_name": "", "publish_to": "",
    }  # fmt: skip
    return {**data, **changes}


# -- pages ---------------------------------------------------------------------------------------------------
def test_an_empty_list_says_what_a_job_is_and_how_to_make_one(browser_of, ben):
    page = browser_of(ben).get(reverse("jobs:job_list")).content.decode()
    assert "No jobs yet" in page
    assert reverse("jobs:job_new") in page


def test_the_list_filters_by_status_and_counts(browser_of, ben, as_ben, job):
    cancel_job(as_ben, make_job(as_ben, name="Second"))
    client = browser_of(ben)
    page = client.get(reverse("jobs:job_list")).content.decode()
    assert "First try" in page and "Second" in page
    only = client.get(reverse("jobs:job_list"), {"status": "cancelled"}).content.decode()
    assert "First try" not in only and "Second" in only
    assert "Nothing matches" in client.get(reverse("jobs:job_list"), {"q": "zebra"}).content.decode()


def test_the_list_refreshes_as_a_fragment_of_itself(browser_of, ben, job):
    page = browser_of(ben).get(reverse("jobs:job_list"), headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in page and job.public_id in page


def test_the_form_makes_the_job_that_the_api_would_make(browser_of, ben, flowers):
    answer = browser_of(ben).post(reverse("jobs:job_new"), posted(flowers, max_spend="1.50"))
    job = Job.objects.get()
    assert answer.status_code == 302 and answer["Location"] == job.get_absolute_url()
    assert job.spec["hyperparameters"]["epochs"] == 3
    assert job.spec["limits"] == {"max_time_s": 600, "max_spend": "1.50"}
    assert job.spec["compression"]["methods"] == ["int8"]


def test_a_spend_limit_that_is_too_low_is_named_at_its_field_and_beside_the_form(browser_of, ben, flowers):
    sent = posted(flowers, max_spend="0.0001")
    page = browser_of(ben).post(reverse("jobs:job_new"), sent)
    assert page.status_code == 422 and not Job.objects.exists()
    assert "at least about" in page.context["form"].errors["max_spend"][0]
    beside = browser_of(ben).post(reverse("jobs:job_new_price"), sent).content.decode()
    assert "at least about" in beside


def test_what_stands_under_advanced_reaches_the_spec_and_comes_back_in_a_clone(browser_of, ben, flowers):
    client = browser_of(ben)
    advanced = {
        "schedule": "linear", "warmup_steps": "5", "clip_norm": "1.5", "grad_accumulation": "2", "patience": "4",
        "watched_metric": "val/accuracy", "checkpoint_every_s": "30", "checkpoint_every_steps": "100",
        "min_processes": "1", "compile": "on",
    }  # fmt: skip
    assert client.post(reverse("jobs:job_new"), posted(flowers, **advanced)).status_code == 302
    job = Job.objects.get()
    spec = job.spec["training"]
    assert spec["early_stopping"] == {"metric": "val/accuracy", "patience": 4}
    told = [spec[name] for name in ("schedule", "warmup_steps", "clip_norm", "grad_accumulation", "compile")]
    assert told == ["linear", 5, 1.5, 2, "on"]
    assert (spec["checkpoint_every_s"], spec["checkpoint_every_steps"]) == (30, 100)
    assert job.spec["resources"]["min_processes"] == 1
    page = client.get(reverse("jobs:job_clone", args=[job.public_id])).content.decode()
    assert '<details class="disclose" open>' in page
    assert 'name="patience" value="4"' in page and 'name="clip_norm" value="1.5"' in page


def test_advanced_is_folded_until_something_in_it_is_wrong(browser_of, ben, flowers):
    client = browser_of(ben)
    assert '<details class="disclose" open>' not in client.get(reverse("jobs:job_new")).content.decode()
    answer = client.post(reverse("jobs:job_new"), posted(flowers, patience="0"))
    page = answer.content.decode()
    assert answer.status_code == 422 and "At least 1" in page
    assert '<details class="disclose" open>' in page


def test_a_wrong_form_comes_back_with_the_words_of_the_api_at_the_field(browser_of, ben, flowers):
    answer = browser_of(ben).post(reverse("jobs:job_new"), posted(flowers, gpus=2, label="country"))
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "this installation has 0 GPUs" in page
    assert "There is 1 class" in page
    assert not Job.objects.exists()


def test_the_summary_shows_a_price_range_and_the_same_job_as_curl(browser_of, ben, flowers):
    page = browser_of(ben).post(reverse("jobs:job_new_price"), posted(flowers)).content.decode()
    assert "$0.01" in page  # one process for ten minutes
    assert "/api/v1/jobs" in page and "From the form" in page


def test_choosing_another_recipe_offers_the_datasets_that_fit(browser_of, ben, flowers, tenant):
    digits = make_version(tenant, format="images", name="digits")
    client = browser_of(ben)
    page = client.post(
        reverse("jobs:job_new_data"), posted(flowers, recipe="image-classification")
    ).content.decode()
    assert digits.public_id in page and flowers.public_id not in page
    assert "Label column" not in page
    page = client.post(
        reverse("jobs:job_new_data"), posted(digits, recipe="text-classification")
    ).content.decode()
    assert flowers.public_id in page and "Text column" in page


def test_the_detail_page_carries_everything_up_to_a_number_and_the_socket_goes_on_from_there(
    browser_of, ben, job
):
    for step in range(1, 6):
        progress.append(job, "metric", {"step": step, "name": "train/loss", "value": 1 / step})
    progress.append(job, "log", {"level": "info", "text": "hello <b>"})
    page = browser_of(ben).get(job.get_absolute_url()).content.decode()
    assert 'data-points="5"' in page and 'data-after="7"' in page
    points = json.loads(re.search(r'id="points-loss" type="application/json">(.*?)</script>', page)[1])
    assert points["Training"] == [[1, 1.0], [2, 0.5], [3, 1 / 3], [4, 0.25], [5, 0.2]]
    assert "hello &lt;b&gt;" in page


@pytest.mark.parametrize("tab", ["overview", "events", "spec", "attempts", "nonsense"])
def test_every_tab_opens_without_the_socket(browser_of, ben, job, tab):
    schedule_once()
    assert browser_of(ben).get(job.get_absolute_url(), {"tab": tab}).status_code == 200


def test_a_failed_job_shows_its_last_error_line(browser_of, ben, job):
    end_job(
        job, to=JobStatus.FAILED, by=SYSTEM, reason=Reason.BAD_DATA, error="row 7: column 'kind' is empty"
    )
    page = browser_of(ben).get(job.get_absolute_url()).content.decode()
    assert 'id="job-error"' in page and "row 7: column &#x27;kind&#x27; is empty" in page
    assert "data-ended" in page


def test_a_waiting_job_says_why(browser_of, ben, as_ben, job):
    make_job(as_ben, name="Wide", resources={"processes": 2})
    schedule_once()
    wide = Job.objects.get(name="Wide")
    assert (
        "waiting for 2 processes; 1 of 2 is free"
        in browser_of(ben).get(wide.get_absolute_url()).content.decode()
    )


def test_a_clone_is_filled_in_like_the_original(browser_of, ben, as_ben, flowers):
    job = make_job(as_ben, flowers, hyperparameters={"epochs": 77}, name="Original")
    page = browser_of(ben).get(reverse("jobs:job_clone", args=[job.public_id])).content.decode()
    assert 'value="77"' in page and 'value="Original"' in page


def test_stopping_is_a_post(browser_of, ben, job):
    client = browser_of(ben)
    url = reverse("jobs:job_cancel", args=[job.public_id])
    assert client.get(url).status_code == 405
    assert client.post(url).status_code == 302
    assert job.reload().status == JobStatus.CANCELLED


def test_a_stranger_gets_404_everywhere(browser_of, cy, api_of, job):
    page = browser_of(cy)
    assert page.get(job.get_absolute_url()).status_code == 404
    for name in ("job_clone", "job_outcome"):
        assert page.get(reverse(f"jobs:{name}", args=[job.public_id])).status_code == 404
    assert page.post(reverse("jobs:job_cancel", args=[job.public_id])).status_code == 404
    api = api_of(cy)
    for name in ("job-detail", "job-events"):
        assert api.get(reverse(f"api:{name}", args=[job.public_id])).status_code == 404
    assert api.post(reverse("api:job-cancel", args=[job.public_id])).status_code == 404
    assert api.get(reverse("api:job-list")).json()["data"] == []


def test_a_viewer_sees_and_may_not_touch(browser_of, tenant, job):
    client = browser_of(factories.make_user("vic@example.org", tenant=tenant, role="viewer"))
    page = client.get(job.get_absolute_url()).content.decode()
    assert reverse("jobs:job_cancel", args=[job.public_id]) not in page
    assert client.get(reverse("jobs:job_new")).status_code == 403
    assert client.post(reverse("jobs:job_cancel", args=[job.public_id])).status_code == 403


# -- API ---------------------------------------------------------------------------------------------------
def test_a_job_by_rest_from_estimate_to_events(api_of, ben, flowers):
    api = api_of(ben)
    asked = api.post(reverse("api:job-estimate"), spec_data(flowers))
    assert asked.status_code == 200 and asked.json()["high"] == "0.06"
    assert not Job.objects.exists()
    made = api.post(reverse("api:job-list"), spec_data(flowers))
    assert made.status_code == 201, made.json()
    body = made.json()
    assert body["status"] == "queued" and body["model_version"] is None and body["cost"] == "0"
    listed = api.get(reverse("api:job-list"), {"status": "queued"}).json()
    assert [one["id"] for one in listed["data"]] == [body["id"]]
    events = api.get(reverse("api:job-events", args=[body["id"]])).json()
    assert [event["seq"] for event in events["data"]] == [1] and events["has_more"] is False
    stopped = api.post(reverse("api:job-cancel", args=[body["id"]])).json()
    assert (stopped["status"], stopped["reason"]) == ("cancelled", "by_user")
    assert api.post(reverse("api:job-cancel", args=[body["id"]])).status_code == 409


def test_a_wrong_spec_is_a_problem_with_pointers(api_of, ben, flowers):
    answer = api_of(ben).post(reverse("api:job-list"), spec_data(flowers, resources={"gpus": 9}))
    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/resources/gpus"]


@pytest.mark.parametrize("body", ["[]", '"spec"', "null", "7"])
def test_json_that_is_no_object_is_refused(api_of, ben, body):
    answer = api_of(ben).post(reverse("api:job-list"), body, content_type="application/json")
    assert answer.status_code == 422, answer.content


@pytest.mark.parametrize(
    "query", [{"state": "queued"}, {"status": "happy"}, {"page": "2"}], ids=["unknown", "value", "page"]
)
def test_a_misspelt_filter_is_refused(api_of, ben, query):
    answer = api_of(ben).get(reverse("api:job-list"), query)
    assert answer.status_code == 400 and answer.json()["code"] == "bad_parameter"


@pytest.mark.parametrize(
    "query", [{"after": "-1"}, {"after": "x"}, {"limit": "0"}, {"limit": "9999"}, {"from": "1"}]
)
def test_a_bad_place_in_the_stream_is_refused(api_of, ben, job, query):
    assert api_of(ben).get(reverse("api:job-events", args=[job.public_id]), query).status_code == 400


def test_the_stream_is_read_in_pieces_without_gap_or_double(api_of, ben, job):
    for step in range(25):
        progress.append(job, "metric", {"step": step, "name": "train/loss", "value": 1.0})
    api, url, after, seen = api_of(ben), reverse("api:job-events", args=[job.public_id]), "0", []
    while after is not None:
        piece = api.get(url, {"after": after, "limit": 7}).json()
        seen += [event["seq"] for event in piece["data"]]
        after = piece["next_cursor"]
    assert seen == list(range(1, 27))


def test_a_token_that_may_only_read_cannot_submit(api_of, ben, flowers):
    api = api_of(ben, scopes=["jobs:read", "datasets:read"])
    assert api.post(reverse("api:job-list"), spec_data(flowers)).status_code == 403
    assert api.get(reverse("api:job-list")).status_code == 200


def test_the_list_costs_the_same_number_of_queries_for_many_jobs(
    api_of, ben, as_ben, flowers, django_assert_max_num_queries
):
    for number in range(8):
        make_job(as_ben, flowers, name=f"Job {number}")
    api = api_of(ben)
    with django_assert_max_num_queries(20):
        assert len(api.get(reverse("api:job-list")).json()["data"]) == 8
    assert outbox.queued == []


@pytest.fixture
def crowd(tenant, ben, flowers):
    """2,000 datasets, each with a profile as large as a wide table's."""
    with connection.cursor() as cursor:  # a plan made without statistics once took more than twenty minutes
        cursor.execute("set local statement_timeout = '60s'")
    made = [Dataset(tenant=tenant, name=f"Set {n:04}", created_by=ben) for n in range(2000)]
    Dataset.objects.bulk_create(made)
    profile = {**flowers.profile, "filler": "x" * 5_000}
    DatasetVersion.objects.bulk_create(
        DatasetVersion(
            tenant=tenant, dataset=one, number=1, format=flowers.format, storage_key=f"none/{one.pk}",
            sha256=f"{one.pk:064}", size_bytes=10, row_count=flowers.row_count, profile=profile,
        )
        for one in made
    )  # fmt: skip


def test_the_form_of_a_new_job_offers_a_few_of_two_thousand_datasets_and_finds_the_others(
    browser_of, ben, crowd, flowers
):
    client = browser_of(ben)
    with CaptureQueriesContext(connection) as asked:
        page = client.get(reverse("jobs:job_new"), {"recipe": "tabular-classification"})
    text = page.content.decode()
    # which recipes have datasets, the newest that fit one, the first one's profile, and the one of the price
    assert page.status_code == 200 and len(asked) < 15
    assert sum('FROM "jobs_datasetversion"' in one["sql"] for one in asked) == 4
    assert text.count('<option value="dsv_') == 50
    assert "The list shows the newest 50" in text
    sent = {"recipe": "tabular-classification", "find": "set 0007", "dataset": flowers.public_id}
    found = client.post(reverse("jobs:job_new_data"), sent, headers={"HX-Trigger-Name": "find"})
    wanted = DatasetVersion.objects.get(dataset__name="Set 0007")
    assert f'<option value="{wanted.public_id}" selected>' in found.content.decode()
    nothing = client.post(reverse("jobs:job_new_data"), {**sent, "find": "zebra\0"}).content.decode()
    assert "No dataset that fits this recipe has this in its name" in nothing
    assert f'<option value="{flowers.public_id}" selected>' in nothing, "the choice made before stays"


def test_a_dataset_beyond_the_list_is_taken_all_the_same(browser_of, ben, crowd, flowers):
    version = DatasetVersion.objects.get(dataset__name="Set 0000")
    assert version.public_id not in browser_of(ben).get(reverse("jobs:job_new")).content.decode()
    linked = browser_of(ben).get(reverse("jobs:job_new"), {"dataset": version.public_id}).content.decode()
    assert f'<option value="{version.public_id}" selected>' in linked
    answer = browser_of(ben).post(reverse("jobs:job_new"), posted(flowers, dataset=version.public_id))
    assert answer.status_code == 302, answer.context["form"].errors
    assert Job.objects.get().dataset_version == version
