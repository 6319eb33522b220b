"""A job's metrics leave in a file that TensorBoard opens: from its page and over the API."""

from __future__ import annotations

import pytest
from django.urls import reverse

from jobs.services import progress
from tests.jobs.factories_jobs import make_job, make_version
from tests.trainer.test_tensorboard import read

pytestmark = pytest.mark.django_db


@pytest.fixture
def job(as_ben, tenant):
    made = make_job(as_ben, make_version(tenant))
    for step, value in ((1, 0.5), (2, 0.25), (2, 0.125), (3, None)):
        progress.append(made, "metric", {"step": step, "name": "train/loss", "value": value})
    progress.append(made, "metric", {"step": 3, "name": "val/accuracy", "value": 1})
    return made


def test_each_step_is_there_once_with_its_last_value(browser_of, ben, job):
    answer = browser_of(ben).get(reverse("jobs:job_tensorboard", args=[job.public_id]))
    assert f"tfevents.{int(job.created_at.timestamp())}.{job.public_id}" in answer["Content-Disposition"]
    _, *events = read(answer.content)
    told = [(one.summary.value[0].tag, one.step, one.summary.value[0].simple_value) for one in events]
    assert told == [("train/loss", 1, 0.5), ("train/loss", 2, 0.125), ("val/accuracy", 3, 1.0)]


def test_the_api_gives_the_same_file(api_of, browser_of, ben, job):
    over_api = api_of(ben).get(reverse("api:job-tensorboard", args=[job.public_id]))
    assert over_api.status_code == 200
    page = browser_of(ben).get(reverse("jobs:job_tensorboard", args=[job.public_id]))
    assert over_api.content == page.content


def test_a_stranger_gets_no_file(browser_of, cy, job):
    assert browser_of(cy).get(reverse("jobs:job_tensorboard", args=[job.public_id])).status_code == 404
