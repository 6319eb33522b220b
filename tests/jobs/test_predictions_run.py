"""Batch predictions with real processes: every row once, as an endpoint answers it, whatever is killed."""

from __future__ import annotations

import csv
import json
import time

import pytest

from billing import seed
from billing.models import Allocation, UsageEvent
from jobs.gateway import frames
from jobs.models import JobFile
from jobs.services import predictions
from jobs.services.jobs import cancel_job, costs_of
from jobs.services.run_files import run_folder
from jobs.states import JobStatus, Reason
from tests.bundles import WEATHER
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_jobs import upload_digits
from tests.jobs.factories_predictions import make_prediction, make_weather, upload_days
from tests.jobs.test_compute import Worker
from tests.trainer.helpers import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

MANY = 12_000


@pytest.fixture
def weather(tenant, tmp_path):
    seed.seed()
    return make_weather(tenant, tmp_path)


def run(job, timeout_s=120):
    worker = Worker(job)
    worker.join(timeout_s)
    return job.reload(), worker


def lines_of(api, job):
    answer = api.get(f"/api/v1/jobs/{job.public_id}/files/predictions.jsonl")
    assert answer.status_code == 200
    return [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]


def test_a_whole_dataset_from_the_queue_to_the_files_and_the_bill(as_ben, ben, api_of, weather):
    days = upload_days(as_ben, 200)
    job, worker = run(make_prediction(as_ben, weather, days, keep=["id"]))
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, "")
    assert (job.step, job.total_steps) == (200, 200)
    api = api_of(ben)
    told = api.get(f"/api/v1/jobs/{job.public_id}").json()
    assert told["result"] == {"rows": 200, "answered": 198, "bad": 2}
    assert [file["name"] for file in told["files"]] == ["predictions.csv", "predictions.jsonl"]

    lines = lines_of(api, job)
    assert [line["row"] for line in lines] == list(range(1, 201))
    assert lines[4]["error"] == "Column 'degrees' holds 'mild', which is no number."
    assert "2 cells, but the header has 3" in lines[7]["error"], "bad when it was uploaded, and not forgotten"
    assert lines[0]["input"] == {"id": "d1"} and lines[0]["label"] == "cold"
    table = api.get(f"/api/v1/jobs/{job.public_id}/files/predictions.csv")
    rows = list(csv.DictReader(b"".join(table.streaming_content).decode().splitlines()))
    assert [row["label"] for row in rows] == [line.get("label", "") for line in lines]

    allocation = Allocation.objects.get(pk=worker.attempt.allocations[0])
    assert (allocation.meter_id, allocation.ended_at is not None) == ("predict.process", True)
    assert UsageEvent.objects.get(meter_id="predict.rows").quantity == 198
    held_s = (worker.attempt.reload().ended_at - worker.attempt.created_at).total_seconds()
    expected = held_s * 0.06 / 3600 + 198 * 0.10 / 1e6
    assert float(costs_of([job])[job.public_id]) == pytest.approx(expected, rel=0.02)
    assert worker.processes == [] and not run_folder(worker.attempt).exists()
    assert job.events.filter(kind="state", data__phase="predicting").exists()


def test_the_answers_are_those_of_an_endpoint(as_ben, ben, api_of, weather, tmp_path):
    days = upload_days(as_ben, 60)
    job, _worker = run(make_prediction(as_ben, weather, days))
    lines = [line for line in lines_of(api_of(ben), job) if "error" not in line]
    degrees = [n % 40 - 10 for n in range(1, 61) if n not in (5, 8)]
    sky = ["snow" if n % 11 == 0 else "sun" for n in range(1, 61) if n not in (5, 8)]
    shape = [len(degrees)]
    body = {
        "inputs": [
            {"name": "degrees", "datatype": "FP32", "shape": shape, "data": degrees},
            {"name": "sky", "datatype": "BYTES", "shape": shape, "data": sky},
        ]
    }
    with make.worker(tmp_path / "weather", tmp_path / "w"):
        said = frames.ask(str(tmp_path / "w" / "s"), json.dumps(body).encode(), timeout_s=20)
    assert said.status == 200
    outputs = {one["name"]: one["data"] for one in json.loads(said.body)["outputs"]}
    assert [line["label"] for line in lines] == outputs["label"]
    shares = [line["probabilities"][name] for line in lines for name in WEATHER]
    assert shares == pytest.approx(outputs["probabilities"], abs=1e-6)


def test_pictures_are_answered_by_file(as_ben, ben, api_of, tenant, tmp_path):
    seed.seed()
    predictor = make.make_model_version(tenant, bundle=make.write_tiny_bundle(tmp_path / "tiny"))
    job, _worker = run(make_prediction(as_ben, predictor, upload_digits(as_ben, images=40)))
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, "")
    lines = lines_of(api_of(ben), job)
    assert len(lines) == 40 and len({line["file"] for line in lines}) == 40
    assert {line["label"] for line in lines} <= set(make.CLASSES)


def test_a_killed_process_is_followed_by_another_that_goes_on(as_ben, ben, api_of, weather, monkeypatch):
    monkeypatch.setattr(predictions, "PART_ROWS", 100)
    days = upload_days(as_ben, MANY)
    job = make_prediction(as_ben, weather, days)
    first = Worker(job)
    parts = run_folder(first.attempt) / "checkpoints"
    wait_for(lambda: len(list(parts.glob("part-*.json"))) >= 3, what="three parts")
    for process in first.processes:
        process.kill()
    first.join(30)
    assert (job.reload().status, first.attempt.reload().reason) == (JobStatus.QUEUED, Reason.KILLED)
    assert not JobFile.objects.exists()

    job, second = run(job)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, "")
    went_on = job.events.filter(attempt=second.attempt, kind="log", data__text__icontains="answered before")
    assert went_on.exists()
    assert [line["row"] for line in lines_of(api_of(ben), job)] == list(range(1, MANY + 1))
    assert UsageEvent.objects.get(meter_id="predict.rows").quantity == MANY - 2
    assert not run_folder(first.attempt).exists()


def test_cancel_ends_it_within_ten_seconds_and_bills_no_row(as_ben, weather, monkeypatch):
    monkeypatch.setattr(predictions, "PART_ROWS", 50)
    job = make_prediction(as_ben, weather, upload_days(as_ben, MANY))
    worker = Worker(job)
    wait_for(lambda: job.reload().step > 0, what="the first rows")
    began = time.monotonic()
    cancel_job(as_ben, job.reload())
    wait_for(lambda: not worker.processes, timeout_s=10, what="the end of the process")
    worker.join(20)
    assert time.monotonic() - began < 20
    assert (job.reload().status, job.reload().reason) == (JobStatus.CANCELLED, Reason.BY_USER)
    assert not JobFile.objects.exists()
    assert not UsageEvent.objects.filter(meter_id="predict.rows").exists()
    assert Allocation.objects.get(pk=worker.attempt.allocations[0]).ended_at is not None
