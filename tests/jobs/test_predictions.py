"""Batch predictions: what may be asked, who may, what it costs, and the pages. Real runs: test_predictions_run."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.files.storage import default_storage
from django.urls import reverse

from billing import seed
from billing.models import Allocation, UsageEvent
from jobs import compute, storage
from jobs.models import Attempt, Dataset, Job, JobFile
from jobs.services import cleaning, predictions
from jobs.services.dispatch import end_attempt
from jobs.services.jobs import costs_of
from jobs.services.lease import LeaseKeeper
from jobs.services.outcome import Outcome
from jobs.services.progress import Fenced
from jobs.services.schedule import schedule_once
from jobs.specs_predictions import PredictionSpec
from jobs.states import JobKind, JobStatus, Reason
from tenants.errors import Invalid
from tenants.services import grants
from tests import factories
from tests.jobs.factories_jobs import FakeCompute, upload_digits
from tests.jobs.factories_predictions import make_prediction, make_weather, prediction_data, upload_days
from tests.jobs.factories_registry import checksum
from trainer.contract import PredictManifest

pytestmark = pytest.mark.django_db
HERE = "/api/v1/batch-predictions"
TABLE = "row,label\n" + "".join(f"{n},{'warm' if n % 3 else 'cold'}\n" for n in range(1, 13))


@pytest.fixture(autouse=True)
def machine(db):
    seed.seed()
    with compute.use(FakeCompute(processes=2)) as fake:
        yield fake


@pytest.fixture
def weather(tenant, tmp_path):
    return make_weather(tenant, tmp_path)


@pytest.fixture
def days(as_ben):
    return upload_days(as_ben)


@pytest.fixture
def job(as_ben, weather, days):
    return make_prediction(as_ben, weather, days)


def write_result(job, folder, answered=38):
    """What a run leaves; returns the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "predictions.csv").write_text(TABLE)
    (folder / "predictions.jsonl").write_text('{"row": 1, "label": "cold"}\n')
    manifest = PredictManifest(
        rows=40, answered=answered, bad=40 - answered, problems=({"row": 5, "reason": "no number"},),
        preview=({"row": 1, "label": "cold", "probability": 0.9},),
        files={name: checksum(folder / name) for name in predictions.FILES},
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


@pytest.fixture
def done(job, tmp_path):
    """A batch prediction that has succeeded."""
    predictions.keep_predictions(job, attempt=None, result_dir=write_result(job, tmp_path / "result"))
    Job.objects.filter(pk=job.pk).update(status=JobStatus.SUCCEEDED)
    return job.reload()


def faults_of(actor, data):
    with pytest.raises(Invalid) as refused:
        PredictionSpec.parse(actor, data)
    return {fault.pointer: fault for fault in refused.value.faults}


# -- what may be asked ---------------------------------------------------------------------------------------
def test_a_dataset_without_the_label_is_enough(api_of, ben, weather, days):
    made = api_of(ben).post(HERE, prediction_data(weather, days), format="json")
    assert made.status_code == 201, made.content
    told = made.json()
    assert (told["kind"], told["status"], told["result"], told["files"]) == (
        "batch_prediction", "queued", None, [],
    )  # fmt: skip
    assert told["spec"]["columns"] == {"degrees": "degrees", "sky": "sky"}
    assert told["name"] == "weather · days"
    job = Job.objects.get(public_id=told["id"])
    assert (job.kind, job.predictor, job.dataset_version) == (JobKind.PREDICTION, weather, days)
    assert api_of(ben).get(HERE).json()["data"][0]["id"] == job.public_id
    assert api_of(ben).get(f"/api/v1/jobs/{job.public_id}").json()["id"] == job.public_id


def test_a_missing_column_is_named_before_anything_runs(api_of, ben, as_ben, weather):
    data = upload_days(as_ben, header="id,temperature,sky")
    refused = api_of(ben).post(HERE, prediction_data(weather, data), format="json")
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/columns/degrees", "missing_column")
    assert "temperature" in error["detail"], "it lists the columns there are"
    assert not Job.objects.filter(kind=JobKind.PREDICTION).exists()
    mended = prediction_data(weather, data, columns={"degrees": "temperature"})
    assert api_of(ben).post(HERE, mended, format="json").status_code == 201


def test_every_fault_is_named_at_once(as_ben, weather, days):
    data = prediction_data(
        weather, days, columns={"degrees": "warmth", "colour": "sky"}, keep=["id", "nothing"], limits={"max_time_s": 1},
        speed=3,
    )  # fmt: skip
    found = faults_of(as_ben, data)
    assert {pointer: fault.code for pointer, fault in found.items()} == {
        "/columns/degrees": "unknown_column",
        "/columns/colour": "unknown_field",
        "/keep/1": "unknown_column",
        "/limits/max_time_s": "range",
        "/speed": "unknown_field",
    }
    assert set(faults_of(as_ben, {})) == {"/model_version", "/dataset"}


def test_a_table_model_refuses_pictures_with_a_pointer(as_ben, weather):
    found = faults_of(as_ben, prediction_data(weather, upload_digits(as_ben, images=40)))
    assert found["/dataset"].code == "wrong_format"


def test_the_column_a_text_model_learned_from_is_found_again(as_ben, weather, days):
    weather.interface["inputs"] = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    weather.save()
    weather.job.spec = {"columns": {"label": "kind", "text": "sky"}}
    weather.job.save()
    spec = PredictionSpec.parse(as_ben, prediction_data(weather, days))
    assert spec.columns == {"text": "sky"}


def test_an_archived_dataset_is_refused(as_ben, weather, days):
    Dataset.objects.filter(pk=days.dataset_id).update(archived_at=days.created_at)
    assert faults_of(as_ben, prediction_data(weather, days))["/dataset"].code == "archived"


def test_a_stored_spec_is_read_back_as_the_same_spec(as_ben, weather, days):
    asked = prediction_data(weather, days, keep=["id"], limits={"max_spend": "1.50"}, labels={"team": "sky"})
    spec = PredictionSpec.parse(as_ben, asked)
    assert PredictionSpec.parse(as_ben, json.loads(json.dumps(spec.to_dict()))) == spec


# -- who may -------------------------------------------------------------------------------------------------
def test_a_stranger_sees_neither_model_nor_data(as_cy, as_ben, weather, days, cy, api_of):
    found = faults_of(as_cy, prediction_data(weather, days))
    assert {pointer: fault.code for pointer, fault in found.items()} == {
        "/model_version": "not_found",
        "/dataset": "not_found",
    }
    assert api_of(cy).post(HERE, prediction_data(weather, days), format="json").status_code == 422


def test_a_model_that_may_only_be_looked_at_answers_nobody_elses_rows(as_cy, as_ana, cy, weather):
    theirs = upload_days(as_cy)
    grants.share(as_ana, weather.model, permission="models.view", with_email=cy.email)
    assert faults_of(as_cy, prediction_data(weather, theirs))["/model_version"].code == "forbidden"
    grants.share(as_ana, weather.model, permission="models.download", with_email=cy.email)
    assert PredictionSpec.parse(as_cy, prediction_data(weather, theirs)).predictor == weather


def test_a_viewer_starts_none_and_reads_no_rows(api_of, browser_of, tenant, done, weather, days):
    eve = factories.make_user("viewer@example.org", tenant=tenant, role="viewer")
    api = api_of(eve)
    assert api.post(HERE, prediction_data(weather, days), format="json").status_code == 403
    told = api.get(f"/api/v1/jobs/{done.public_id}").json()
    assert told["result"] == {"rows": 40, "answered": 38, "bad": 2}
    assert api.get(f"/api/v1/jobs/{done.public_id}/files/predictions.csv").status_code == 403
    page = browser_of(eve).get(done.get_absolute_url()).content.decode()
    assert "no number" not in page and "predictions.csv" not in page
    assert browser_of(eve).get(reverse("jobs:prediction_new")).status_code == 403


def test_the_files_are_for_members_and_nobody_else(api_of, ben, cy, done):
    path = f"/api/v1/jobs/{done.public_id}/files/predictions.csv"
    answer = api_of(ben).get(path)
    assert answer.status_code == 200
    assert b"".join(answer.streaming_content) == TABLE.encode()
    assert "weather-days-predictions.csv" in answer["Content-Disposition"]
    assert api_of(cy).get(path).status_code == 404
    assert api_of(ben).get(path.replace("predictions.csv", "other.csv")).status_code == 404


def test_answers_become_a_dataset_and_files_can_be_deleted(api_of, ben, cy, as_ben, done):
    path = f"/api/v1/jobs/{done.public_id}/files"
    api = api_of(ben)
    assert api_of(cy).post(f"{path}/predictions.csv/dataset", {"name": "mine"}).status_code == 404
    assert api_of(cy).delete(path).status_code == 404
    kept = api.post(f"{path}/predictions.csv/dataset", {"name": "answers"}, format="json")
    assert (kept.status_code, kept.json()["latest"]["row_count"]) == (201, 12), kept.content
    assert api.delete(path).status_code == 204
    assert api.get(f"{path}/predictions.csv").status_code == 404
    told = api.get(f"/api/v1/jobs/{done.public_id}").json()
    assert (told["files"], told["result"]["answered"]) == ([], 38)
    assert "problems" not in Job.objects.get(pk=done.pk).result, "words of rows go with the files"


# -- what it costs -------------------------------------------------------------------------------------------
def test_the_price_has_the_process_and_the_rows(api_of, ben, weather, days):
    told = api_of(ben).post(f"{HERE}/estimate", prediction_data(weather, days), format="json").json()
    assert [line["meter"] for line in told["lines"]] == ["predict.process", "predict.rows"]
    assert told["lines"][1]["low"] == told["lines"][1]["high"] == "0.000004", "40 rows at 0.10 a million"
    assert told["high_s"] == 3600


def test_its_place_is_billed_as_prediction(job):
    assert schedule_once() >= 1
    attempt = Attempt.objects.get(job=job)
    assert Allocation.objects.get(pk=attempt.allocations[0]).meter_id == "predict.process"


def test_rows_are_metered_once_and_only_those_answered(job, tmp_path):
    result = write_result(job, tmp_path / "result")
    predictions.keep_predictions(job, attempt=None, result_dir=result)
    predictions.keep_predictions(job, attempt=None, result_dir=result)
    (event,) = UsageEvent.objects.filter(meter_id="predict.rows")
    assert (event.user_label, event.dims) == (job.created_by.email, {"labels": job.spec["labels"]})
    assert (event.quantity, event.subject) == (38, job.public_id)
    assert JobFile.objects.filter(job=job).count() == 2
    assert costs_of([job])[job.public_id] == Decimal("0.0000038")


def test_an_attempt_that_lost_its_job_during_the_upload_keeps_and_bills_nothing(
    job, tenant, tmp_path, monkeypatch
):
    schedule_once()
    attempt = Attempt.objects.get(job=job)
    before, store = storage.used_bytes(tenant), predictions.store_file
    keys = []

    def upload(file, path):
        store(file, path)
        keys.append(file.storage_key)
        if len(keys) == len(predictions.FILES):  # the lease ran out meanwhile, and the sweep was here
            lost = Outcome(status=None, reason=Reason.WORKER_LOST, error="")
            assert end_attempt(attempt, lost, exit_code=None, at_last_beat=True)

    monkeypatch.setattr(predictions, "store_file", upload)
    with pytest.raises(Fenced):
        predictions.keep_predictions(job, attempt=attempt, result_dir=write_result(job, tmp_path / "result"))
    assert not JobFile.objects.exists() and not UsageEvent.objects.filter(meter_id="predict.rows").exists()
    assert job.reload().result is None and storage.used_bytes(tenant) == before
    assert len(keys) == 2 and not any(default_storage.exists(key) for key in keys)


def test_an_attempt_that_holds_its_job_keeps_and_bills(job, tmp_path):
    schedule_once()
    attempt = Attempt.objects.get(job=job)
    predictions.keep_predictions(job, attempt=attempt, result_dir=write_result(job, tmp_path / "result"))
    assert JobFile.objects.filter(job=job).count() == 2
    assert UsageEvent.objects.filter(meter_id="predict.rows").count() == 1


def test_a_file_that_is_not_the_one_of_the_manifest_is_not_kept(job, tmp_path):
    result = write_result(job, tmp_path / "result")
    (result / "predictions.csv").write_text("something else")
    with pytest.raises(Invalid):
        predictions.keep_predictions(job, attempt=None, result_dir=result)
    assert not JobFile.objects.exists() and not UsageEvent.objects.exists()


def test_a_spend_limit_leaves_room_for_the_rows(as_ben, weather, days):
    owed = Decimal("0.000004")
    job = make_prediction(as_ben, weather, days)
    schedule_once()
    attempt = Attempt.objects.get(job=job)
    Job.objects.filter(pk=job.pk).update(max_spend=Decimal("0.0001"))
    roomy = LeaseKeeper(attempt, job.reload())
    assert roomy.owed == owed
    roomy._look_at_limits()
    assert roomy.stop_for == Reason.NONE
    roomy.owed = Decimal("0.0001")
    roomy._look_at_limits()
    assert roomy.stop_for == Reason.SPEND_LIMIT


def test_kept_files_are_counted_and_never_swept_as_orphans(done, tenant):
    size = sum(JobFile.objects.values_list("size_bytes", flat=True))
    before = storage.used_bytes(tenant)
    assert cleaning.sweep_orphans(older_than=timedelta(0)) == 0
    JobFile.objects.all().delete()
    assert storage.used_bytes(tenant) == before - size
    assert cleaning.sweep_orphans(older_than=timedelta(0)) == 2


# -- pages ---------------------------------------------------------------------------------------------------
def test_the_form_is_reached_from_model_and_dataset_and_starts_a_job(browser_of, ben, weather, days):
    bens = browser_of(ben)
    form = reverse("jobs:prediction_new")
    assert f"{form}?version={weather.public_id}" in bens.get(weather.get_absolute_url()).content.decode()
    assert f"{form}?dataset={days.public_id}" in bens.get(days.dataset.get_absolute_url()).content.decode()
    page = bens.get(f"{form}?dataset={days.public_id}").content.decode()
    assert weather.public_id in page and "Predicted rows" in page
    posted = {
        "model_version": weather.public_id, "dataset": days.public_id, "column_0": "degrees", "column_1": "sky",
        "keep": ["id"], "max_minutes": 5,
    }  # fmt: skip
    answer = bens.post(form, posted)
    job = Job.objects.get(kind=JobKind.PREDICTION)
    assert answer.status_code == 302 and answer["Location"] == job.get_absolute_url()
    assert (job.spec["keep"], job.max_time_s) == (["id"], 300)


def test_the_form_asks_which_column_is_meant_where_none_fits(browser_of, ben, as_ben, weather):
    data = upload_days(as_ben, header="id,temperature,sky")
    bens, form = browser_of(ben), reverse("jobs:prediction_new")
    asked = {"model_version": weather.public_id, "dataset": data.public_id, "max_minutes": 5}
    shown = bens.post(form, {**asked, "column_0": "", "column_1": "sky"})
    assert shown.status_code == 422
    assert "The model needs degrees" in shown.content.decode()
    fields = bens.post(reverse("jobs:prediction_fields"), asked).content.decode()
    assert "Choose a column" in fields and "temperature" in fields
    assert bens.post(form, {**asked, "column_0": "temperature", "column_1": "sky"}).status_code == 302


def test_the_job_page_shows_what_was_answered(browser_of, ben, done):
    page = browser_of(ben).get(done.get_absolute_url()).content.decode()
    assert "Rows answered" in page and "no number" in page
    assert reverse("jobs:job_file", args=[done.public_id, "predictions.jsonl"]) in page
    assert "Training loss" not in page
    assert "batch-predictions" in page, "the same as a command"
    spec = browser_of(ben).get(f"{done.get_absolute_url()}?tab=spec").content.decode()
    assert "Batch prediction" in spec
    again = browser_of(ben).get(reverse("jobs:job_clone", args=[done.public_id]))
    assert again["Location"].startswith(reverse("jobs:prediction_new"))
    assert browser_of(ben).get(again["Location"]).status_code == 200
