"""Pages and API of datasets: what people see, send and are told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse

from jobs.models import Dataset
from jobs.services import datasets
from tenants.services import grants
from tests.factories import make_user
from tests.jobs.factories_datasets import CSV, images_zip, make_dataset, png, stored_files, upload, zip_of


@pytest.fixture
def anas(browser_of, ana):
    return browser_of(ana)


def api(path: str = "") -> str:
    return f"/api/v1/datasets{path}"


def test_an_empty_list_offers_the_upload_and_a_curl(anas):
    answer = anas.get("/datasets/").content.decode()
    assert reverse("jobs:dataset_new") in answer
    assert "curl -s http://testserver/api/v1/datasets" in answer


def test_the_list_shows_rows_size_classes_versions_and_jobs(anas, as_ana, django_assert_max_num_queries):
    for n in range(3):
        version = make_dataset(as_ana, f"Cats {n}", images_zip(per_class=3 + n), "cats.zip")
        datasets.add_version(as_ana, version.dataset, file=upload(images_zip(10 + n), "cats.zip"))
    anas.get("/datasets/")
    with django_assert_max_num_queries(16):
        answer = anas.get("/datasets/")
    assert "Cats 2" in answer.content.decode()
    assert [one.all_versions[0].row_count for one in answer.context["page_obj"]] == [24, 22, 20]
    assert answer.context["page_obj"][0].all_versions[0].class_count == 2


def test_the_list_is_searched_and_archived_datasets_are_shown_only_when_asked_for(anas, as_ana):
    make_dataset(as_ana, "Cats", images_zip(), "cats.zip")
    datasets.archive_dataset(as_ana, make_dataset(as_ana, "Old").dataset)
    names = lambda query: [one.name for one in anas.get(f"/datasets/{query}").context["page_obj"]]  # noqa: E731
    assert names("") == ["Cats"]
    assert names("?q=ATS") == ["Cats"]
    assert names("?q=dogs") == []
    assert names("?show=archived") == ["Old"]
    assert names("?show=nonsense&page=x") == ["Cats"]


def test_a_dataset_is_uploaded_by_a_plain_form(anas):
    answer = anas.post("/datasets/new", {"name": "Reviews", "file": upload(CSV)}, follow=True)
    assert answer.status_code == 200
    assert "40 rows" in answer.content.decode()
    assert Dataset.objects.get().latest.row_count == 40


def test_a_refused_file_says_why_in_words_at_the_field(anas):
    answer = anas.post("/datasets/new", {"name": "Reviews", "file": upload(b"1,2\n3,4\n")})
    assert answer.status_code == 422
    assert "Put a row with the column names on top" in answer.content.decode()
    assert answer.context["form"].errors["file"]
    assert stored_files() == []


def test_a_name_that_is_taken_is_said_at_the_name(anas, as_ana):
    make_dataset(as_ana)
    answer = anas.post("/datasets/new", {"name": "reviews", "file": upload(CSV)})
    assert "is taken" in answer.context["form"].errors["name"][0]


def test_an_empty_form_names_both_fields(anas):
    answer = anas.post("/datasets/new", {})
    assert answer.status_code == 422
    assert set(answer.context["form"].errors) == {"name", "file"}


@pytest.mark.parametrize("where", ["/datasets/new", "upload"])
def test_a_page_refuses_a_body_over_the_cap_before_reading_it(anas, as_ana, settings, where):
    if where == "upload":
        where = reverse("jobs:dataset_upload", args=[make_dataset(as_ana).dataset.public_id])
    before = stored_files()
    settings.MAX_UPLOAD_BYTES = 100
    answer = anas.post(where, {"name": "Big", "file": upload(b"x" * 1_100_000)})
    assert answer.status_code == 413
    assert "larger than" in answer.content.decode()
    assert stored_files() == before


class FullDiskHandler:
    """Stands for Django's own upload handlers on a full disk."""

    def __init__(self, *_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_while_the_body_arrives_is_named(anas, settings):
    settings.FILE_UPLOAD_HANDLERS = ["tests.jobs.test_datasets_pages.FullDiskHandler"]
    answer = anas.post("/datasets/new", {"name": "Big", "file": upload(CSV)})
    assert answer.status_code == 507
    assert "disk of this installation is full" in answer.content.decode()


@pytest.mark.parametrize("path", ["/datasets/new", "upload"])
def test_an_upload_without_the_csrf_token_is_refused(ana, as_ana, path):
    if path == "upload":
        path = reverse("jobs:dataset_upload", args=[make_dataset(as_ana).dataset.public_id])
    before = stored_files()
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ana, backend="django.contrib.auth.backends.ModelBackend")
    assert strict.post(path, {"name": "Forged", "file": upload(CSV + b"x,1,no\n")}).status_code == 403
    assert stored_files() == before
    strict.get("/datasets/new")
    token = strict.cookies["csrftoken"].value
    good = {"name": "Mine", "file": upload(CSV + b"x,1,no\n"), "csrfmiddlewaretoken": token}
    assert strict.post(path, good).status_code == 302


def test_the_page_of_a_table_shows_rows_columns_and_problems(anas, as_ana):
    version = make_dataset(as_ana, content=CSV + b"<script>alert(1)</script>,2,no\nonly one\n")
    answer = anas.get(version.dataset.get_absolute_url()).content.decode()
    for words in (
        "good thing 0",
        "stars",
        version.sha256,
        "1 cells, but the header has 3",
        "No job has used it",
    ):
        assert words in answer
    assert "<script>alert" not in answer


def test_the_page_of_images_shows_thumbnails_and_class_balance(anas, as_ana):
    version = make_dataset(as_ana, "Cats", images_zip(top="set/"), "cats.zip")
    answer = anas.get(version.dataset.get_absolute_url()).content.decode()
    url = reverse("jobs:dataset_thumbnail", args=[version.dataset.public_id, version.public_id, 0])
    assert url in answer
    picture = anas.get(url)
    assert picture.content.startswith(b"\x89PNG")
    assert picture["Content-Type"] == "image/png"
    assert picture["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in picture["Content-Security-Policy"]
    assert "private" in picture["Cache-Control"]
    assert anas.get(url.replace("/0.png", "/99.png")).status_code == 404


def test_names_from_a_zip_are_shown_as_text_only(anas, as_ana):
    files = {
        f"{name}/{n}.png": png((n, 1, 1)) for name in ('<img src=x onerror="x()">', "dog") for n in range(2)
    }
    version = make_dataset(as_ana, "Evil", zip_of(files), "evil.zip")
    assert "<img src=x" not in anas.get(version.dataset.get_absolute_url()).content.decode()


def test_an_older_version_has_a_page_and_says_so(anas, as_ana):
    dataset = make_dataset(as_ana).dataset
    datasets.add_version(as_ana, dataset, file=upload(CSV + b"more,1,no\n"))
    url = dataset.get_absolute_url()
    assert anas.get(f"{url}?version=1").context["version"].row_count == 40
    assert "The latest is version 2" in anas.get(f"{url}?version=1").content.decode()
    assert anas.get(url).context["version"].row_count == 41
    assert anas.get(f"{url}?version=9").status_code == 404
    assert anas.get(f"{url}?version=x").context["version"].number == 2


def test_a_new_version_is_uploaded_from_the_page_and_a_double_is_told(anas, as_ana):
    dataset = make_dataset(as_ana).dataset
    url = reverse("jobs:dataset_upload", args=[dataset.public_id])
    answer = anas.post(url, {"file": upload(CSV)})
    assert answer.status_code == 409
    assert "very bytes of version 1" in answer.content.decode()
    assert anas.post(url, {"file": upload(CSV + b"more,1,no\n")}).status_code == 302
    assert dataset.versions.count() == 2


def test_archiving_takes_it_out_of_the_list(anas, as_ana):
    dataset = make_dataset(as_ana).dataset
    assert anas.post(reverse("jobs:dataset_archive", args=[dataset.public_id])).status_code == 302
    assert list(anas.get("/datasets/").context["page_obj"]) == []
    assert "Archived" in anas.get(dataset.get_absolute_url()).content.decode()


def test_sharing_lets_one_stranger_in_and_unsharing_shuts_the_door(anas, as_ana, cy, browser_of):
    dataset, url = make_dataset(as_ana).dataset, "jobs:dataset_"
    there = browser_of(cy)
    share = reverse(f"{url}share", args=[dataset.public_id])
    answer = anas.post(share, {"email": "nobody@example.org", "permission": "datasets.view"})
    assert answer.status_code == 422
    assert "not the confirmed address of anybody here" in answer.content.decode()
    assert there.get(dataset.get_absolute_url()).status_code == 404
    assert anas.post(share, {"email": cy.email, "permission": "datasets.view"}).status_code == 302
    assert there.get(dataset.get_absolute_url()).status_code == 200
    assert "Shared with you" in there.get("/datasets/").content.decode()
    assert there.post(reverse(f"{url}archive", args=[dataset.public_id])).status_code == 403
    assert (
        there.post(reverse(f"{url}upload", args=[dataset.public_id]), {"file": upload(CSV)}).status_code
        == 403
    )
    assert there.post(share, {"email": cy.email, "permission": "datasets.view"}).status_code == 403
    anas.post(reverse(f"{url}unshare", args=[dataset.public_id]), {"kind": "person", "holder": cy.email})
    assert there.get(dataset.get_absolute_url()).status_code == 404


def test_a_stranger_gets_404_everywhere(browser_of, api_of, cy, as_ana):
    version = make_dataset(as_ana, "Cats", images_zip(), "cats.zip")
    dataset, there = version.dataset.public_id, browser_of(cy)
    for path in (
        f"/datasets/{dataset}",
        f"/datasets/{dataset}/versions/{version.public_id}/thumbnails/0.png",
    ):
        assert there.get(path).status_code == 404
    for verb in ("upload", "archive", "share", "unshare"):
        assert there.post(f"/datasets/{dataset}/{verb}", {"file": upload(CSV)}).status_code == 404
    assert list(there.get("/datasets/").context["page_obj"]) == []
    client = api_of(cy)
    for path in ("", "/versions", f"/versions/{version.public_id}"):
        assert client.get(api(f"/{dataset}{path}")).status_code == 404
    assert (
        client.post(api(f"/{dataset}/versions"), {"file": upload(CSV)}, format="multipart").status_code == 404
    )
    assert client.post(api(f"/{dataset}/archive")).status_code == 404
    assert client.get(api()).json()["data"] == []


def test_a_viewer_looks_and_a_billing_person_does_not(browser_of, api_of, as_ana, tenant):
    version = make_dataset(as_ana)
    viewer = make_user("vi@example.org", tenant=tenant, role="viewer")
    clerk = make_user("bill@example.org", tenant=tenant, role="billing")
    look = browser_of(viewer).get(version.dataset.get_absolute_url())
    assert look.status_code == 200
    assert 'data-dialog="upload"' not in look.content.decode()
    assert browser_of(viewer).get("/datasets/new").status_code == 403
    assert (
        api_of(viewer).post(api(), {"name": "x", "file": upload(CSV)}, format="multipart").status_code == 403
    )
    assert browser_of(clerk).get("/datasets/").status_code == 403
    assert api_of(clerk).get(api()).status_code == 403


def test_a_signed_out_person_is_sent_to_sign_in(client, as_ana):
    version = make_dataset(as_ana)
    for path in ("/datasets/", "/datasets/new", version.dataset.get_absolute_url()):
        assert client.get(path).status_code == 302
    assert client.post("/datasets/new", {"name": "x", "file": upload(CSV)}).status_code == 302
    assert len(stored_files()) == 1


def test_the_api_uploads_lists_reads_and_archives(api_of, ben):
    client = api_of(ben)
    made = client.post(api(), {"name": "Reviews", "file": upload(CSV)}, format="multipart")
    assert made.status_code == 201
    dataset, body = made.json()["id"], made.json()["latest"]
    assert (body["number"], body["row_count"], body["format"], body["problem_count"]) == (1, 40, "csv", 0)
    assert made.json()["name"] == "Reviews"
    listed = client.get(api()).json()
    assert (listed["data"][0]["id"], listed["has_more"], listed["next_cursor"]) == (dataset, False, None)
    assert listed["data"][0]["latest"]["sha256"] == body["sha256"]
    second = client.post(api(f"/{dataset}/versions"), {"file": upload(CSV + b"x,1,no\n")}, format="multipart")
    assert second.json()["number"] == 2
    versions = client.get(api(f"/{dataset}/versions?limit=1")).json()
    assert ([one["number"] for one in versions["data"]], versions["has_more"]) == ([2], True)
    more = client.get(api(f"/{dataset}/versions?limit=1&cursor={versions['next_cursor']}")).json()
    assert [one["number"] for one in more["data"]] == [1]
    whole = client.get(api(f"/{dataset}/versions/{body['id']}")).json()
    assert [column["name"] for column in whole["profile"]["columns"]] == ["text", "stars", "label"]
    assert whole["dataset"] == dataset
    assert client.post(api(f"/{dataset}/archive")).json()["archived_at"] is not None
    assert client.get(api()).json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "status", "pointer", "code"),
    [
        ({"file": upload(CSV)}, 422, "/name", "required"),
        ({"name": "x"}, 422, "/file", "required"),
        ({"name": "x", "file": "not a file"}, 422, "/file", "invalid"),
        ({"name": "x", "file": upload(CSV), "label": "y"}, 422, "/label", "unknown_field"),
        ({"name": "x", "file": upload(b"", "empty.csv")}, 422, "/file", "empty"),
        ({"name": "x", "file": upload(b"no zip", "cats.zip")}, 422, "/file", "corrupt_zip"),
        ({"name": "x", "file": upload(b"a,a\n1,2\n")}, 422, "/file", "duplicate_column"),
    ],
)
def test_the_api_points_at_what_is_wrong(api_of, ana, fields, status, pointer, code):
    answer = api_of(ana).post(api(), fields, format="multipart")
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    found = answer.json()["errors"][0]
    assert (found["pointer"], found["code"]) == (pointer, code)
    assert answer.json()["detail"]
    assert stored_files() == []


def test_the_api_names_a_body_over_the_cap(api_of, ana, settings):
    settings.MAX_UPLOAD_BYTES = 100
    for content in (CSV, b"x" * 1_100_000):
        answer = api_of(ana).post(api(), {"name": "x", "file": upload(content)}, format="multipart")
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert answer.json()["errors"][0]["pointer"] == "/file"


def test_the_api_names_a_full_disk(api_of, ana, settings):
    settings.FILE_UPLOAD_HANDLERS = ["tests.jobs.test_datasets_pages.FullDiskHandler"]
    answer = api_of(ana).post(api(), {"name": "x", "file": upload(CSV)}, format="multipart")
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")


def test_the_api_tells_a_double_and_the_version_it_equals(api_of, ana, as_ana):
    dataset = make_dataset(as_ana).dataset
    answer = api_of(ana).post(
        api(f"/{dataset.public_id}/versions"), {"file": upload(CSV)}, format="multipart"
    )
    assert answer.status_code == 409
    assert "version 1" in answer.json()["detail"]


def test_a_token_needs_the_scope(api_of, ana, as_ana):
    make_dataset(as_ana)
    assert api_of(ana, ["jobs:read"]).get(api()).status_code == 403
    reader = api_of(ana, ["datasets:read"])
    assert len(reader.get(api()).json()["data"]) == 1
    assert reader.post(api(), {"name": "x", "file": upload(CSV)}, format="multipart").status_code == 403


def test_a_token_limited_to_what_is_shared_with_it_sees_only_that(as_ana, ana):
    from rest_framework.test import APIClient

    from tenants.models import ApiToken
    from tests.factories import make_token

    shared = make_dataset(as_ana, "Shared").dataset
    make_dataset(as_ana, "Not shared", CSV + b"x,1,no\n")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(ana, granted_only=True)}")
    grants.share(as_ana, shared, permission="datasets.view", with_token=ApiToken.objects.get())
    assert [one["name"] for one in client.get(api()).json()["data"]] == ["Shared"]


def test_a_large_upload_arrives_whole(api_of, ana, tmp_path: Path):
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.write(b"text,label\n")
        for n in range(120_000):
            file.write(b"a fairly long line of text that repeats %d,%d\n" % (n, n % 2))
    with path.open("rb") as file:
        answer = api_of(ana).post(api(), {"name": "Large", "file": file}, format="multipart")
    assert answer.json()["latest"]["row_count"] == 120_000
    assert answer.json()["latest"]["size_bytes"] == path.stat().st_size > 5_000_000
