"""Requests nobody sends by mistake: each is refused in problem+json, and none is a 500."""

from __future__ import annotations

import base64
import json

import pytest
from django.test import Client

from billing import seed
from tests.factories import make_token
from tests.jobs.factories_jobs import make_job, make_version

PROBLEM = "application/problem+json"


@pytest.fixture
def call(ana):
    """One raw call of Ana's, whose server errors are answers and no exceptions."""
    client = Client(raise_request_exception=False, headers={"Authorization": f"Bearer {make_token(ana)}"})

    def _call(method: str, path: str, body: str | bytes = "", kind: str = "application/json"):
        return client.generic(method, f"/api/v1/{path}", body, content_type=kind)

    return _call


def refused(answer, *statuses: int) -> dict[str, object]:
    assert (answer.status_code in statuses, answer["Content-Type"]) == (True, PROBLEM), answer.content[:200]
    return answer.json()


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800"])
@pytest.mark.parametrize(
    ("path", "field"), [("jobs/estimate", "dataset"), ("endpoints", "version"), ("tokens", "name")]
)
def test_text_that_no_database_keeps_is_named_by_its_pointer(call, text, path, field):
    told = refused(call("POST", path, json.dumps({field: text})), 422)
    assert told["errors"][0]["pointer"] == f"/{field}"


def test_such_text_is_found_in_lists_and_in_keys(call):
    told = refused(call("POST", "jobs", json.dumps({"columns": {"features": ["ok", "\ud800"]}})), 422)
    assert told["errors"][0]["pointer"] == "/columns/features/1"
    refused(call("POST", "invitations/accept", json.dumps({"\ud800": 1})), 422)


@pytest.mark.parametrize("body", ["[" * 100_000 + "]" * 100_000, '{"a":' * 500 + "1" + "}" * 500])
def test_bottomless_json_is_refused(call, body):
    refused(call("POST", "jobs", body), 400)


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "holdout"])
def test_a_whole_number_beyond_any_float_is_a_fault_of_its_field(call, field, sign):
    told = refused(
        call("POST", "jobs/estimate", f'{{"hyperparameters": {{"{field}": {sign}1{"0" * 400}}}}}'), 422
    )
    assert f"/hyperparameters/{field}" in {fault["pointer"] for fault in told["errors"]}


def test_a_form_is_no_job(call):
    refused(call("POST", "jobs", "dataset=a%00b", "application/x-www-form-urlencoded"), 415)


@pytest.mark.parametrize("path", ["jobs/%00", "jobs/a%00b/events", "invoices/%00", "jobs?q=%00"])
def test_nul_in_an_address_is_refused(call, path):
    refused(call("GET", path), 400)


def test_nul_in_a_cursor_is_an_invalid_cursor(call):
    refused(call("GET", f"meters?cursor={base64.b64encode(b'p=%00').decode()}"), 404)


@pytest.mark.parametrize("path", ["nope", "tokens/..", "members/%F0%9F%98%80"])
def test_an_address_of_the_api_that_is_none_is_told_in_json(call, path):
    assert refused(call("GET", path), 404)["code"] == "not_found"


def test_a_body_over_the_limit_is_told_in_json(call, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    assert refused(call("POST", "jobs", json.dumps({"name": "x" * 2000})), 413)["code"] == "too_large"


def test_a_wrong_host_is_told_in_json(db):
    answer = Client(headers={"host": "evil.example"}).get("/api/v1/jobs")
    refused(answer, 400)


def test_a_crash_of_the_api_is_told_in_json(call, monkeypatch):
    def crash(*_args, **_options):
        raise RuntimeError("secret words")

    monkeypatch.setattr("jobs.api.jobs.find_job", crash)
    answer = call("GET", "jobs/job_x")
    assert refused(answer, 500)["code"] == "internal_error"
    assert b"secret words" not in answer.content


@pytest.mark.parametrize("limit", ["0" * 19 + "1" + "9" * 100, "9" * 5000])
def test_a_number_of_many_digits_is_no_limit(call, as_ana, limit):
    seed.seed()
    job = make_job(as_ana, make_version(as_ana.tenant))
    refused(call("GET", f"jobs/{job.public_id}/events?limit={limit}"), 400)


@pytest.mark.parametrize("path", ["/search?q=%00", "/jobs/new?dataset=%00", "/jobs/%00"])
def test_nul_in_the_address_of_a_page_is_refused(browser_of, ana, path):
    assert browser_of(ana).get(path).status_code == 400


def test_a_token_of_odd_letters_does_not_open_the_metrics(db, monkeypatch):
    monkeypatch.setenv("TAUON_METRICS_TOKEN", "scraper")
    client = Client(raise_request_exception=False)
    assert client.get("/metrics", headers={"Authorization": "Bearer ÿ"}).status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer scraper"}).status_code == 200
