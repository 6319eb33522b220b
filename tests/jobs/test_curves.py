"""The charts of a job's page: exact while it is short, true to its shape and its newest points when it is long."""

from __future__ import annotations

import math

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.models import Job, JobEvent
from jobs.services import curves, live_page
from tests.jobs.factories_jobs import make_job, make_version


@pytest.fixture
def job(as_ben):
    return make_job(as_ben, make_version(as_ben.tenant))


def measure(job: Job, count: int, *, spike_at: int = -1) -> Job:
    """So many steps of training loss, and a validation accuracy every hundredth step."""
    rows, seq = [], job.last_seq
    for step in range(count):
        loss = 1000.0 if step == spike_at else math.exp(-step / count)
        points = [("train/loss", loss)] + ([("val/accuracy", step / count)] if step % 100 == 0 else [])
        for name, value in points:
            seq += 1
            data = {"name": name, "step": step, "value": value}
            rows.append(JobEvent(job=job, seq=seq, kind="metric", data=data))
    JobEvent.objects.bulk_create(rows, batch_size=5000)
    Job.objects.filter(pk=job.pk).update(last_seq=seq)
    return job.reload()


def line(drawn: curves.Curves, name: str) -> list[tuple[float, float]]:
    return [(step, value) for one, step, value in drawn.points if one == name]


def test_a_short_job_is_drawn_point_by_point(job):
    drawn = curves.read(measure(job, 300))
    assert drawn.count == 303
    assert [step for step, _value in line(drawn, "train/loss")] == list(range(300))


def test_a_long_job_keeps_its_extremes_its_newest_points_and_its_count(job):
    long = measure(job, 20_000, spike_at=7777)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        drawn = curves.read(long)
    assert len(asked) <= 5
    assert drawn.count == 20_200
    assert len(drawn.points) <= 4 * curves.BUCKETS + curves.TAIL
    loss = line(drawn, "train/loss")
    assert (7777.0, 1000.0) in loss, "a spike is what a reader looks for"
    assert [step for step, _value in loss] == sorted({step for step, _value in loss})
    newest = [step for step, _value in loss][-900:]
    assert newest == list(range(20_000 - 900, 20_000))
    accuracy = line(drawn, "val/accuracy")
    assert (accuracy[0], accuracy[-1]) == ((0.0, 0.0), (19_900, 0.995))


def test_what_could_not_be_measured_is_counted_and_not_drawn(job):
    job = measure(job, 7000)
    for step in (3500, 6999):
        event = JobEvent.objects.get(job=job, data__step=step, data__name="train/loss")
        JobEvent.objects.filter(pk=event.pk).update(data={**event.data, "value": None})
    drawn = curves.read(job)
    assert drawn.count == 7070
    assert not {3500.0, 6999.0} & {step for step, _value in line(drawn, "train/loss")}


def test_the_page_tells_the_exact_count_and_what_comes_after_stays_with_the_socket(job):
    job = measure(job, 8000)
    JobEvent.objects.create(
        job=job, seq=job.last_seq + 1, kind="metric", data={"name": "train/loss", "step": 8000, "value": 5.0}
    )
    state = live_page.first_state(job)  # as it was read a moment before
    assert state["points"] == 8080
    assert state["loss"] == pytest.approx(math.exp(-7999 / 8000))
