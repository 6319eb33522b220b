"""Archiving and bringing back: what endpoints hold stays, files go after the grace, and nobody is billed for air."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from billing import clock, seed
from billing.models import UsageEvent
from jobs import storage
from jobs.models import Dataset, Endpoint, Job, Model, ModelVersion
from jobs.services import cleaning, datasets, registry, revisions, shelf
from jobs.services.endpoints import publish_endpoint, revise_endpoint, start_endpoint, stop_endpoint
from jobs.services.storage_meter import meter_storage
from jobs.specs_endpoints import EndpointSpec
from jobs.states import EndpointStatus, JobKind, JobStatus
from tenants.actor import Actor
from tenants.errors import Conflict, Forbidden, Hidden, Invalid, Refused
from tenants.http import actor_from_user
from tenants.models import AuditEntry
from tests.factories import make_user
from tests.jobs.factories_datasets import make_dataset, stored_files
from tests.jobs.factories_endpoints import make_endpoint, make_model_version
from tests.jobs.factories_registry import make_finished_job, make_model

pytestmark = pytest.mark.django_db


@pytest.fixture
def version(as_ana: Actor, tmp_path) -> ModelVersion:
    seed.seed()
    return make_model(as_ana, tmp_path)


def shelved(row: Dataset | Model | ModelVersion, *, days_ago: float) -> None:
    """As if it had been archived then."""
    rows = type(row).objects.filter(pk=row.pk)
    if isinstance(row, ModelVersion):
        rows = ModelVersion.objects.filter(model=row.model_id, number=row.number)
    rows.update(archived_at=timezone.now() - timedelta(days=days_ago))


def told(action: str) -> list[str]:
    return list(AuditEntry.objects.filter(action=action).values_list("target_id", flat=True))


# -- in use --------------------------------------------------------------------------------------------------


def test_an_archived_model_takes_no_new_endpoint_by_any_door(as_ana, version):
    other = make_model_version(as_ana.tenant, name="other")
    endpoint = make_endpoint(as_ana, other, slug="other")
    shelf.archive_model(as_ana, version.model)
    old = version.reload()
    doors: list[Callable[[], object]] = [
        lambda: publish_endpoint(as_ana, name="New", version=old),
        lambda: revise_endpoint(as_ana, endpoint, old),
        lambda: revisions.start_canary(as_ana, endpoint, old, share=100),
        lambda: revisions.start_shadow(as_ana, endpoint, old),
        lambda: EndpointSpec.parse(as_ana, {"name": "New", "version": old.public_id}),
    ]
    for door in doors:
        with pytest.raises(Invalid, match="is archived, so it cannot answer") as refused:
            door()
        assert [(one.pointer, one.code) for one in refused.value.faults] == [("/version", "archived")]
    assert list(Endpoint.objects.values_list("slug", flat=True)) == ["other"]
    shelf.restore_model(as_ana, version.model)
    publish_endpoint(as_ana, name="New", version=version.reload())
    assert told("model.archived") == told("model.restored") == [version.model.public_id]


@pytest.mark.parametrize("status", [EndpointStatus.STARTING, EndpointStatus.LIVE, EndpointStatus.ASLEEP])
def test_a_model_that_answers_somewhere_is_not_archived_awake_or_asleep(as_ana, version, status):
    endpoint = make_endpoint(as_ana, version, name="Shop")
    Endpoint.objects.filter(pk=endpoint.pk).update(status=status)
    for archive, target in ((shelf.archive_model, version.model), (shelf.archive_version, version)):
        with pytest.raises(Conflict, match="is still needed: Shop answers with it"):
            archive(as_ana, target)
    assert version.reload().shelved_at is None
    stop_endpoint(as_ana, endpoint)
    shelf.archive_model(as_ana, version.model)
    assert version.reload().shelved_at is not None


@pytest.mark.parametrize(
    ("pointer", "why"),
    [
        ("canary", "Shop tries it"),
        ("shadow", "Shop shadows with it"),
        ("previous", "Shop would go back to it"),
    ],
)
def test_a_version_that_is_tried_shadows_or_would_be_gone_back_to_is_not_archived(
    as_ana, version, pointer, why
):
    other = make_model_version(as_ana.tenant, name="other")
    first = version if pointer == "previous" else other
    endpoint = make_endpoint(as_ana, first, name="Shop")
    if pointer == "canary":
        revisions.start_canary(as_ana, endpoint, version, share=100)
    elif pointer == "shadow":
        revisions.start_shadow(as_ana, endpoint, version)
    else:
        revise_endpoint(as_ana, endpoint, other)
    with pytest.raises(Conflict, match=why):
        shelf.archive_version(as_ana, version)
    stop_endpoint(as_ana, endpoint)
    shelf.archive_version(as_ana, version)
    assert getattr(endpoint.reload(), pointer) is None, "a stopped endpoint forgets it"
    assert endpoint.reload().current.version == other
    start_endpoint(as_ana, endpoint)


def test_another_variant_of_the_run_holds_the_whole_version(as_ana, version):
    make_endpoint(as_ana, version.parent, name="Shop")
    with pytest.raises(Conflict, match="digits v1"):
        shelf.archive_version(as_ana, version)


def test_a_stopped_endpoint_does_not_start_with_an_archived_version_nor_go_back_to_one(as_ana, version):
    endpoint = make_endpoint(as_ana, version)
    stop_endpoint(as_ana, endpoint)
    shelf.archive_version(as_ana, version)
    with pytest.raises(Conflict, match="is archived"):
        start_endpoint(as_ana, endpoint)
    revise_endpoint(as_ana, endpoint, make_model_version(as_ana.tenant, name="other"))
    assert endpoint.reload().status == EndpointStatus.STARTING
    with pytest.raises(Conflict, match="is archived"):
        revisions.roll_back(as_ana, endpoint)
    shelf.restore_version(as_ana, version)
    assert revisions.roll_back(as_ana, endpoint).current.version == version


def test_a_version_is_archived_with_its_variants_and_the_one_before_stands_for_the_model(
    as_ana, version, tmp_path
):
    newer = make_model(as_ana, tmp_path / "again")
    shelf.archive_version(as_ana, newer)
    archived = ModelVersion.objects.exclude(archived_at=None)
    assert {one.number for one in archived} == {2} and archived.count() == 3
    assert newer.model.latest == version
    assert set(ModelVersion.objects.in_use()) == set(version.model.versions.filter(number=1))
    shelf.archive_version(as_ana, newer)
    assert told("model.version_archived") == [newer.model.public_id], "twice is as good as once"
    shelf.restore_version(as_ana, newer)
    assert newer.model.latest == newer


def test_a_later_job_of_the_same_name_begins_a_new_model_and_the_old_one_cannot_take_its_name_back(
    as_ana, version, tmp_path
):
    shelf.archive_model(as_ana, version.model)
    newer = make_model(as_ana, tmp_path / "again")
    assert (newer.model.name, newer.number) == ("digits", 1) and newer.model != version.model
    with pytest.raises(Conflict, match="is the name of another model now"):
        shelf.restore_model(as_ana, version.model)
    assert version.model.reload().archived_at is not None
    shelf.archive_model(as_ana, newer.model)
    shelf.restore_model(as_ana, version.model)
    assert version.model.reload().archived_at is None


def test_a_version_comes_back_only_with_its_model(as_ana, version):
    shelf.archive_version(as_ana, version)
    shelf.archive_model(as_ana, version.model)
    with pytest.raises(Conflict, match="Restore the model first"):
        shelf.restore_version(as_ana, version)
    shelf.restore_model(as_ana, version.model)
    assert version.reload().archived_at is not None, "it was archived by itself before"
    shelf.restore_version(as_ana, version)
    assert version.reload().shelved_at is None


def test_viewers_and_guests_archive_and_restore_nothing_and_strangers_see_nothing(
    as_ana, as_cy, tenant, version
):
    viewer = actor_from_user(make_user("vi@example.org", tenant=tenant, role="viewer"))
    data = make_dataset(as_ana, "Data").dataset
    for act, target in (
        (shelf.archive_model, version.model),
        (shelf.restore_model, version.model),
        (shelf.archive_version, version),
        (shelf.restore_version, version),
        (datasets.restore_dataset, data),
    ):
        for actor, refusal in ((viewer, Forbidden), (as_cy, Hidden)):
            with pytest.raises(refusal):
                act(actor, target)
    assert version.reload().shelved_at is None


# -- files and bills -----------------------------------------------------------------------------------------


def test_files_of_an_archived_model_go_after_the_grace_and_reports_stay(as_ana, version):
    kept = [version.dataset_version.storage_key]
    shelf.archive_model(as_ana, version.model)
    shelved(version.model, days_ago=29)
    assert cleaning.delete_archived_files() == 0
    shelved(version.model, days_ago=31)
    assert cleaning.delete_archived_files() == 3
    assert stored_files() == kept
    assert storage.used_bytes(version.tenant) == version.dataset_version.size_bytes
    gone = version.reload()
    assert gone.files_deleted_at is not None and gone.report == version.report
    assert told("model.files_deleted") == [version.model.public_id] * 3
    assert cleaning.delete_archived_files() == 0
    with pytest.raises(Conflict, match="files are deleted"):
        registry.open_artifact(as_ana, gone.artifacts.select_related("version__model").first())
    with pytest.raises(Conflict, match="Train it again"):
        shelf.restore_model(as_ana, version.model)


def test_only_the_archived_version_loses_its_files(as_ana, version, tmp_path):
    newer = make_model(as_ana, tmp_path / "again")
    shelf.archive_version(as_ana, version)
    shelved(version, days_ago=31)
    assert cleaning.delete_archived_files() == 3
    assert {one.storage_key for one in newer.artifacts.all()} <= set(stored_files())
    assert not {one.storage_key for one in version.artifacts.all()} & set(stored_files())
    with pytest.raises(Conflict, match="Train it again"):
        shelf.restore_version(as_ana, version)


def test_a_model_that_a_prediction_waits_for_keeps_its_files(as_ana, version):
    job = make_finished_job(
        as_ana, version.dataset_version, name="answers", kind=JobKind.PREDICTION, predictor=version
    )
    Job.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED)
    shelf.archive_model(as_ana, version.model)
    shelved(version.model, days_ago=400)
    assert cleaning.delete_archived_files() == 2, "the other variants"
    assert version.reload().files_deleted_at is None
    Job.objects.filter(pk=job.pk).update(status=JobStatus.CANCELLED)
    assert cleaning.delete_archived_files() == 1


def test_what_came_back_keeps_its_files_for_good(as_ana, version):
    data = version.dataset_version.dataset
    for archive, restore, row in (
        (shelf.archive_model, shelf.restore_model, version.model),
        (shelf.archive_version, shelf.restore_version, version),
        (datasets.archive_dataset, datasets.restore_dataset, data),
    ):
        before = stored_files()
        archive(as_ana, row)
        shelved(row, days_ago=20)
        restore(as_ana, row)
        restore(as_ana, row)
        assert cleaning.delete_archived_files() == 0
        assert stored_files() == before
    assert told("dataset.restored") == [data.public_id]
    assert told("model.version_restored") == told("model.restored") == [version.model.public_id]


def test_a_dataset_comes_back_under_its_name_unless_somebody_took_it_or_its_files_are_gone(as_ana):
    old = make_dataset(as_ana, "Reviews").dataset
    datasets.archive_dataset(as_ana, old)
    newer = make_dataset(as_ana, "reviews").dataset
    with pytest.raises(Conflict, match="is the name of another dataset now"):
        datasets.restore_dataset(as_ana, old)
    datasets.archive_dataset(as_ana, newer)
    datasets.restore_dataset(as_ana, old)
    assert old.reload().archived_at is None
    datasets.archive_dataset(as_ana, old)
    shelved(old, days_ago=31)
    cleaning.delete_archived_files()
    with pytest.raises(Conflict, match="Upload them again"):
        datasets.restore_dataset(as_ana, old)


def test_archived_files_are_billed_until_they_are_deleted_and_not_a_window_longer(
    as_ana, version, monkeypatch
):
    noon = timezone.now().replace(minute=0, second=0, microsecond=0)

    def billed() -> int:
        meter_storage()
        return UsageEvent.objects.filter(meter="storage", subject=version.model.public_id).count()

    monkeypatch.setattr(clock, "now", lambda: noon + timedelta(hours=2))
    first = billed()
    shelf.archive_model(as_ana, version.model)
    monkeypatch.setattr(clock, "now", lambda: noon + timedelta(hours=3))
    assert (archived := billed()) > first, "its files are kept, so they cost"
    shelved(version.model, days_ago=31)
    cleaning.delete_archived_files()
    monkeypatch.setattr(clock, "now", lambda: noon + timedelta(hours=4))
    assert billed() == archived


# -- at once -------------------------------------------------------------------------------------------------


def both(*acts: Callable[[], object]) -> list[object]:
    """Do these at the same moment; what each gave or raised."""
    gate, found = threading.Barrier(len(acts)), [None] * len(acts)

    def run(place: int, act: Callable[[], object]) -> None:
        gate.wait()
        try:
            found[place] = act()
        except Refused as refusal:
            found[place] = refusal
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=one) for one in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.django_db(transaction=True)
def test_who_publishes_and_who_archives_at_once_never_both_succeed(as_ana, tmp_path):
    seed.seed()
    for round_ in range(5):
        version = make_model(as_ana, tmp_path / str(round_), f"m{round_}")
        published, archived = both(
            lambda v=version: publish_endpoint(as_ana, name=v.model.name, version=v),
            lambda v=version: shelf.archive_model(as_ana, v.model),
        )
        served = isinstance(published, Endpoint)
        assert served == isinstance(archived, Conflict), (published, archived)
        assert (version.reload().shelved_at is None) == served


@pytest.mark.django_db(transaction=True)
def test_who_restores_and_who_sweeps_at_once_agree_whether_there_are_files(as_ana, tmp_path):
    for round_ in range(5):
        version = make_model(as_ana, tmp_path / str(round_), f"m{round_}")
        data = make_dataset(as_ana, f"d{round_}")
        for act, row in ((shelf.archive_model, version.model), (datasets.archive_dataset, data.dataset)):
            act(as_ana, row)
            shelved(row, days_ago=31)
        both(
            cleaning.delete_archived_files,
            lambda v=version: shelf.restore_model(as_ana, v.model),
            lambda d=data: datasets.restore_dataset(as_ana, d.dataset),
        )
        there = set(stored_files())
        assert (version.model.reload().archived_at is None) == all(
            one.storage_key in there for one in version.artifacts.all()
        )
        assert (data.dataset.reload().archived_at is None) == (data.storage_key in there)
        cleaning.delete_archived_files()


@pytest.mark.django_db(transaction=True)
def test_an_archiver_waits_for_whoever_is_publishing(as_ana, tmp_path):
    """The lock itself: publishing has not committed, so archiving is not through, and is then refused."""
    seed.seed()
    version = make_model(as_ana, tmp_path)
    found: list[object] = []

    def archive() -> None:
        try:
            found.append(shelf.archive_model(as_ana, version.model))
        except Refused as refusal:
            found.append(refusal)
        finally:
            connections.close_all()

    with transaction.atomic():
        publish_endpoint(as_ana, name="Shop", version=version)
        thread = threading.Thread(target=archive)
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive() and not found
    thread.join(timeout=60)
    assert isinstance(found[0], Conflict)
