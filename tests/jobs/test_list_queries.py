"""Lists of the API ask the database as often for many rows as for one."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.services import datasets
from tests.jobs.factories_datasets import CSV, make_dataset, upload
from tests.jobs.factories_registry import make_model


def queries(client, path: str) -> tuple[int, list[dict[str, object]]]:
    with CaptureQueriesContext(connection) as captured:
        answer = client.get(path)
    return len(captured), answer.json()["data"]


def test_many_datasets_take_no_more_queries_than_one(api_of, as_ben, ben):
    first = make_dataset(as_ben, "first")
    client = api_of(ben)
    client.get("/api/v1/datasets")
    one, _rows = queries(client, "/api/v1/datasets")
    second = make_dataset(as_ben, "second")
    newer = datasets.add_version(as_ben, first.dataset, file=upload(CSV + b"more,1,yes\n"))
    many, rows = queries(client, "/api/v1/datasets")
    assert many == one
    assert [row["latest"]["id"] for row in rows] == [second.public_id, newer.public_id]


def test_many_models_take_no_more_queries_than_one(api_of, as_ben, ben, tmp_path):
    made = [make_model(as_ben, tmp_path / "a", "a")]
    client = api_of(ben)
    client.get("/api/v1/models")
    one, _rows = queries(client, "/api/v1/models")
    made += [make_model(as_ben, tmp_path / "b", "b"), make_model(as_ben, tmp_path / "c", "c")]
    many, rows = queries(client, "/api/v1/models")
    assert many == one
    assert [row["latest"] for row in rows] == [version.public_id for version in reversed(made)]
