"""Pages and API of models: the compression report, and files for those who may have them."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from asgiref.sync import sync_to_async
from django.core.files.storage import default_storage
from django.db import connections
from django.test import AsyncClient
from django.urls import reverse

from jobs import comparison
from jobs.models import ModelVersion
from tenants.crypto import Sealed
from tenants.services import grants
from tests.factories import make_user
from tests.jobs.factories_registry import MEASURED, make_model


@pytest.fixture
def anas(browser_of, ana):
    return browser_of(ana)


@pytest.fixture
def version(as_ana, tmp_path):
    return make_model(as_ana, tmp_path)


def file_url(version: ModelVersion, name: str = "model.onnx") -> str:
    return reverse("jobs:artifact_download", args=[version.model.public_id, version.public_id, name])


def test_an_empty_list_says_where_models_come_from(anas):
    assert "A finished job puts its model here" in anas.get("/models/").content.decode()


def test_the_list_and_the_model_show_the_chosen_variant_of_each_run(anas, as_ana, version, tmp_path):
    second = make_model(as_ana, tmp_path)
    answer = anas.get("/models/")
    assert answer.context["page_obj"][0].chosen[0] == second
    assert "97.2 %" in answer.content.decode()
    runs = anas.get(version.model.get_absolute_url()).context["runs"]
    assert [(run["number"], run["chosen"].variant, run["count"]) for run in runs] == [
        (2, "int8", 3),
        (1, "int8", 3),
    ]


def test_the_report_tells_before_after_and_what_was_measured_where(anas, version):
    answer = anas.get(version.get_absolute_url()).content.decode()
    for words in (
        "3.6x smaller, 1.3x faster here", "39.1 KiB →", "10.7 KiB", "3.6× smaller", "97.50 % →", "97.20 %",
        "0.30 points lower", "0.21 ms →", "0.16 ms", "2 x Intel Xeon", "360 held-out rows",
        "model.safetensors",
    ):  # fmt: skip
        assert words in answer, words
    for name in MEASURED:
        assert f">{name}</a>" in answer


def test_the_original_is_compared_with_the_chosen_one_and_a_failed_one_is_told_so(anas, version):
    original = version.parent
    assert anas.get(original.get_absolute_url()).context["after"] == version
    failed = version.model.versions.get(variant="prune")
    answer = anas.get(failed.get_absolute_url())
    assert answer.context["deltas"]["accuracy"].tone == "bad"
    assert "Did not pass the gate" in answer.content.decode()


def test_nothing_is_claimed_where_no_variant_was_worth_it(anas, as_ana, tmp_path):
    from jobs.services import registry
    from tests.jobs.factories_registry import make_finished_job, write_result

    job = make_finished_job(as_ana, name="plain")
    kept = registry.register_run(
        job, attempt=None, result_dir=write_result(tmp_path / "r", chosen="original")
    )
    answer = anas.get(kept.get_absolute_url())
    assert "The original was kept" in answer.content.decode()
    assert "→</span>" not in answer.content.decode()


def test_every_file_can_be_downloaded_and_equals_its_checksum(anas, version):
    for artifact in version.artifacts.all():
        answer = anas.get(file_url(version, artifact.name))
        content = b"".join(answer.streaming_content)
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
        assert answer["Content-Length"] == str(len(content))
        assert answer["Content-Disposition"] == f'attachment; filename="digits-v1-int8-{artifact.name}"'
        assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.django_db(transaction=True)
def test_under_asgi_a_file_streams_piece_by_piece(ana, as_ana, tmp_path):
    version = make_model(as_ana, tmp_path)

    async def fetch() -> tuple[bool, bytes]:
        client = AsyncClient()
        await client.aforce_login(ana, backend="django.contrib.auth.backends.ModelBackend")
        answer = await client.get(file_url(version))
        content = b"".join([piece async for piece in answer.streaming_content])
        await sync_to_async(connections.close_all)()
        return answer.is_async, content

    is_async, content = asyncio.run(fetch())
    assert is_async
    assert content.startswith(b"the graph of int8")


def test_a_damaged_file_is_an_error_and_not_a_short_download(anas, version):
    artifact = version.artifacts.get(name="model.onnx")
    path = default_storage.path(artifact.storage_key)
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(100)
        file.write(b"\0\0\0\0")
    with pytest.raises(Sealed):
        anas.get(file_url(version))


def test_a_viewer_reads_the_report_but_gets_no_file(browser_of, api_of, version, tenant):
    viewer = make_user("vi@example.org", tenant=tenant, role="viewer")
    page = browser_of(viewer).get(version.get_absolute_url())
    assert page.status_code == 200
    assert file_url(version) not in page.content.decode()
    assert browser_of(viewer).get(file_url(version)).status_code == 403
    api = api_of(viewer)
    assert api.get(f"/api/v1/versions/{version.public_id}").status_code == 200
    assert api.get(f"/api/v1/versions/{version.public_id}/artifacts/model.onnx").status_code == 403


def test_a_stranger_gets_404_everywhere(browser_of, api_of, cy, version):
    model, there = version.model.public_id, browser_of(cy)
    for path in (f"/models/{model}", version.get_absolute_url(), file_url(version)):
        assert there.get(path).status_code == 404
    for verb in ("share", "unshare"):
        assert there.post(f"/models/{model}/{verb}", {"email": cy.email}).status_code == 404
    api = api_of(cy)
    for path in (
        f"models/{model}", f"models/{model}/versions", f"versions/{version.public_id}",
        f"versions/{version.public_id}/artifacts/model.onnx",
    ):  # fmt: skip
        assert api.get(f"/api/v1/{path}").status_code == 404
    assert api.get("/api/v1/models").json()["data"] == []


def test_a_shared_model_opens_for_one_person_without_its_job_and_data(anas, browser_of, as_ana, cy, version):
    there = browser_of(cy)
    anas.post(f"/models/{version.model.public_id}/share", {"email": cy.email, "permission": "models.view"})
    page = there.get(version.get_absolute_url())
    assert page.status_code == 200
    assert version.dataset_version.dataset.public_id not in page.content.decode()
    assert version.job.public_id not in page.content.decode()
    assert there.get(version.dataset_version.dataset.get_absolute_url()).status_code == 404
    assert there.get(file_url(version)).status_code == 403
    grants.share(as_ana, version.model, permission="models.download", with_email=cy.email)
    assert there.get(file_url(version)).status_code == 200
    anas.post(f"/models/{version.model.public_id}/unshare", {"kind": "person", "holder": cy.email})
    assert there.get(version.get_absolute_url()).status_code == 404


def test_the_api_lists_models_versions_report_and_files(api_of, ben, version):
    api = api_of(ben)
    model = api.get("/api/v1/models").json()["data"][0]
    assert (model["name"], model["latest"]) == ("digits", version.public_id)
    assert api.get(f"/api/v1/models/{model['id']}").json() == model
    versions = api.get(f"/api/v1/models/{model['id']}/versions").json()["data"]
    assert {one["variant"] for one in versions} == set(MEASURED)
    assert [one["id"] for one in versions if one["is_chosen"]] == [version.public_id]
    one = api.get(f"/api/v1/versions/{version.public_id}").json()
    assert one["report"]["verdict"].startswith("3.6x smaller")
    assert one["run"]["machine"].startswith("2 x Intel")
    assert one["interface"]["inputs"][0]["name"] == "text"
    assert one["parent"] == version.parent.public_id
    for artifact in one["artifacts"]:
        answer = api.get(f"/api/v1/versions/{version.public_id}/artifacts/{artifact['name']}")
        assert hashlib.sha256(b"".join(answer.streaming_content)).hexdigest() == artifact["sha256"]
    assert api.get(f"/api/v1/versions/{version.public_id}/artifacts/none").status_code == 404


@pytest.mark.parametrize(
    ("before", "after", "kind", "amount"),
    [(100, 25, "better", 4.0), (100, 98, "same", 1.0), (100, 150, "worse", 1.5), (0, 5, "same", 1.0)],
)
def test_sizes_and_latencies_are_told_as_times_and_small_changes_as_none(before, after, kind, amount):
    delta = comparison.times(before, after)
    assert (delta.kind, delta.amount) == (kind, amount)


@pytest.mark.parametrize(
    ("after", "passed", "kind", "tone"),
    [(0.98, True, "better", "ok"), (0.97, True, "same", "idle"), (0.96, True, "worse", "warn"),
     (0.90, False, "worse", "bad")],
)  # fmt: skip
def test_accuracy_is_told_in_points(after, passed, kind, tone):
    delta = comparison.points(0.97, after, passed=passed)
    assert (delta.kind, delta.tone) == (kind, tone)


@pytest.mark.parametrize(
    ("report", "manifest", "told"),
    [
        (
            {"beats_baseline": False},
            {"baseline": {"name": "commonest class", "value": 0.96}},
            "right for 96.0 %",
        ),
        ({"beats_baseline": True}, {"baseline": {"name": "commonest class", "value": 0.96}}, ""),
        ({"beats_baseline": None}, {"baseline_accuracy": 0.98}, "right for 98.0 %"),
        ({"beats_baseline": None}, {"baseline_accuracy": 0.5}, ""),
        ({"beats_baseline": None}, {"baseline_accuracy": None}, ""),
        (
            {"beats_baseline": False},
            {"quality": "R2", "baseline": {"name": "the mean", "value": 0.0}},
            "The simplest guess (the mean) scores 0.000",
        ),
    ],
)
def test_a_model_that_is_no_better_than_guessing_is_told_apart_from_one_that_passed(
    anas, version, report, manifest, told
):
    ModelVersion.objects.filter(pk=version.pk).update(
        report={**version.report, **report}, manifest={**version.manifest, **manifest}
    )
    for path in (
        f"/jobs/{version.job.public_id}",
        f"{version.model.get_absolute_url()}/versions/{version.public_id}",
    ):
        page = anas.get(path).content.decode()
        assert ("No better than guessing" in page) == bool(told), path
        assert told in page
