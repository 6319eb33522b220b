"""Archive and Restore on pages and over the API, and as a person clicks them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from jobs.models import Dataset, Model, ModelVersion
from jobs.services import cleaning, shelf
from tests.factories import make_user
from tests.jobs.factories_datasets import make_dataset
from tests.jobs.factories_endpoints import make_endpoint
from tests.jobs.factories_registry import make_model

pytestmark = pytest.mark.django_db


@pytest.fixture
def version(as_ana, tmp_path) -> ModelVersion:
    return make_model(as_ana, tmp_path)


@pytest.fixture
def anas(browser_of, ana):
    return browser_of(ana)


def names(client, query: str = "") -> list[str]:
    return [one.name for one in client.get(f"/models/{query}").context["page_obj"]]


def test_archived_models_leave_the_list_and_are_found_again_on_their_shelf(anas, as_ana, version, tmp_path):
    make_model(as_ana, tmp_path / "b", "faces")
    assert names(anas) == ["faces", "digits"] and names(anas, "?q=DIG") == ["digits"]
    answer = anas.post(f"{version.model.get_absolute_url()}/archive", follow=True)
    assert "“digits” is archived." in answer.content.decode()
    assert names(anas) == ["faces"]
    assert names(anas, "?show=archived") == ["digits"]
    page = anas.get(version.model.get_absolute_url()).content.decode()
    assert "This model is archived. Its files are deleted on" in page
    assert "/endpoints/new?version=" not in page
    assert "/endpoints/new?version=" not in anas.get(version.get_absolute_url()).content.decode()
    assert "/endpoints/new?version=" not in anas.get(f"/jobs/{version.job.public_id}").content.decode()
    assert version.public_id not in anas.get("/endpoints/new").content.decode()
    anas.post(f"{version.model.get_absolute_url()}/restore")
    assert names(anas) == ["faces", "digits"]


def test_with_every_model_archived_the_list_says_so_and_offers_the_archive(anas, as_ana, version):
    shelf.archive_model(as_ana, version.model)
    page = anas.get("/models/").content.decode()
    assert "All models are archived" in page and 'value="archived"' in page
    assert "No model fits" in anas.get("/models/?q=zebra").content.decode()


def test_a_version_moves_to_the_archived_ones_of_its_model_and_back(anas, as_ana, version, tmp_path):
    make_model(as_ana, tmp_path / "again")
    address = version.get_absolute_url()
    page = anas.post(f"{address}/archive", follow=True)
    assert page.redirect_chain[-1][0] == version.model.get_absolute_url()
    assert [run["number"] for run in page.context["runs"]] == [2]
    assert [run["number"] for run in page.context["archived_runs"]] == [1]
    assert "Archived versions" in page.content.decode()
    assert "This version is archived. Its files are deleted on" in anas.get(address).content.decode()
    anas.post(f"{address}/restore")
    assert version.reload().archived_at is None


def test_a_refusal_is_told_on_the_page_it_was_asked_from(anas, as_ana, version):
    make_endpoint(as_ana, version, name="Shop")
    for address in (version.model.get_absolute_url(), version.get_absolute_url()):
        answer = anas.post(f"{address}/archive", follow=True)
        assert answer.redirect_chain[-1][0] == address
        assert "Shop answers with it" in answer.content.decode()
    assert version.reload().shelved_at is None


def test_once_the_files_are_gone_the_page_says_so_and_offers_neither_restore_nor_download(
    anas, api_of, ana, as_ana, version
):
    shelf.archive_model(as_ana, version.model)
    Model.objects.update(archived_at=timezone.now() - timedelta(days=31))
    cleaning.delete_archived_files()
    address = version.get_absolute_url()
    for page in (anas.get(version.model.get_absolute_url()), anas.get(address)):
        assert "The files were deleted on" in page.content.decode()
        assert "/restore" not in page.content.decode()
    assert "model.onnx" in page.content.decode() and "/files/model.onnx" not in page.content.decode()
    assert anas.get(f"{address}/files/model.onnx").status_code == 409
    answer = api_of(ana).get(f"/api/v1/versions/{version.public_id}/artifacts/model.onnx")
    assert answer.status_code == 409 and "files are deleted" in answer.json()["detail"]


def test_the_api_archives_lists_and_restores_models_versions_and_datasets(api_of, ben, as_ben, version):
    api = api_of(ben)
    model, data = version.model.public_id, make_dataset(as_ben, "Data").dataset.public_id
    for noun, one in (("models", model), ("datasets", data)):
        made = api.post(f"/api/v1/{noun}/{one}/archive")
        assert made.status_code == 200 and made.json()["archived_at"] is not None
        assert one not in {row["id"] for row in api.get(f"/api/v1/{noun}").json()["data"]}
        assert [row["id"] for row in api.get(f"/api/v1/{noun}?archived=true").json()["data"]] == [one]
        assert api.get(f"/api/v1/{noun}?archived=perhaps").status_code == 400
        assert api.post(f"/api/v1/{noun}/{one}/restore").json()["archived_at"] is None
    told = api.post(f"/api/v1/versions/{version.public_id}/archive").json()
    assert told["archived_at"] is not None and told["files_deleted_at"] is None
    assert api.get(f"/api/v1/models/{model}").json()["latest"] is None
    assert [row["latest"] for row in api.get("/api/v1/models").json()["data"]] == [None]
    refused = api.post("/api/v1/endpoints", {"name": "Shop", "version": version.public_id}, format="json")
    assert refused.status_code == 422
    assert [(one["pointer"], one["code"]) for one in refused.json()["errors"]] == [("/version", "archived")]
    batch = {"model_version": version.public_id, "dataset": version.dataset_version.public_id}
    refused = api.post("/api/v1/batch-predictions", batch, format="json")
    assert [(one["pointer"], one["code"]) for one in refused.json()["errors"]] == [
        ("/model_version", "archived")
    ]
    assert api.post(f"/api/v1/versions/{version.public_id}/restore").json()["archived_at"] is None


def test_a_viewer_gets_403_and_a_token_needs_the_scope(browser_of, api_of, ben, tenant, version):
    viewer = make_user("vi@example.org", tenant=tenant, role="viewer")
    data = version.dataset_version.dataset
    paths = (
        version.model.get_absolute_url(), version.get_absolute_url(), data.get_absolute_url(),
    )  # fmt: skip
    for path in paths:
        assert 'data-dialog="archive"' not in browser_of(viewer).get(path).content.decode()
        for verb in ("archive", "restore"):
            assert browser_of(viewer).post(f"{path}/{verb}").status_code == 403
    reader = api_of(ben, ["models:read", "datasets:read"])
    for path in (
        f"models/{version.model.public_id}",
        f"versions/{version.public_id}",
        f"datasets/{data.public_id}",
    ):
        for verb in ("archive", "restore"):
            assert api_of(viewer).post(f"/api/v1/{path}/{verb}").status_code == 403
            assert reader.post(f"/api/v1/{path}/{verb}").status_code == 403
    assert version.reload().shelved_at is None and data.reload().archived_at is None


def test_a_guest_sees_an_archived_model_but_cannot_bring_it_back(anas, browser_of, as_ana, cy, version):
    address = version.model.get_absolute_url()
    anas.post(f"{address}/share", {"email": cy.email, "permission": "models.download"})
    shelf.archive_model(as_ana, version.model)
    there = browser_of(cy)
    assert "/restore" not in there.get(address).content.decode()
    assert there.post(f"{address}/restore").status_code == 403


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
@pytest.mark.browser
def test_a_person_archives_a_model_a_version_and_a_dataset_and_brings_them_back(page: Page, as_ana, tmp_path):
    version = make_model(as_ana, tmp_path)
    data = version.dataset_version.dataset
    for address, row in (
        (version.model.get_absolute_url(), version.model),
        (version.get_absolute_url(), version),
        (data.get_absolute_url(), data),
    ):
        page.goto(address)
        page.get_by_role("button", name="Archive", exact=True).first.click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Its files are deleted for good after 30 days")
        dialog.get_by_role("button", name="Archive", exact=True).click()
        expect(page.get_by_text("is archived.").first).to_be_visible()
        assert row.reload().archived_at is not None
        page.goto(address)
        page.get_by_role("button", name="Restore").click()
        expect(page.get_by_role("button", name="Archive", exact=True)).to_be_visible()
        assert row.reload().archived_at is None
    assert Dataset.objects.get().archived_at is None
