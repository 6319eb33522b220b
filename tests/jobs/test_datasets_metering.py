"""Storage is billed by the byte-second: no second twice, no second lost."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection

from billing import clock, seed
from billing.models import UsageEvent
from jobs.models import Artifact, DatasetVersion
from jobs.services import datasets
from jobs.services.storage_meter import meter_storage
from tests.jobs.factories_datasets import CSV, make_dataset, upload
from tests.jobs.factories_registry import make_model

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@pytest.fixture
def at(monkeypatch, db):
    """at(moment) sets the clock money listens to."""
    seed.seed()

    def set_clock(moment: datetime) -> None:
        monkeypatch.setattr(clock, "now", lambda: moment)

    set_clock(NOON)
    return set_clock


def born(version: DatasetVersion, moment: datetime) -> DatasetVersion:
    DatasetVersion.objects.filter(pk=version.pk).update(created_at=moment)
    return version


def byte_seconds(subject: str) -> Decimal:
    return sum(
        UsageEvent.objects.filter(meter="storage", subject=subject).values_list("quantity", flat=True),
        Decimal(0),
    )


def test_bytes_times_seconds_since_the_upload_are_recorded(at, as_ana):
    version = born(make_dataset(as_ana), NOON)
    at(NOON + timedelta(seconds=601))
    assert meter_storage() == 1
    assert byte_seconds(version.dataset.public_id) == len(CSV) * 600


def test_measuring_twice_adds_nothing(at, as_ana):
    version = born(make_dataset(as_ana), NOON)
    at(NOON + timedelta(minutes=10))
    assert [meter_storage(), meter_storage(), meter_storage()] == [1, 0, 0]
    assert byte_seconds(version.dataset.public_id) == len(CSV) * 600


def test_many_small_steps_make_the_same_sum_as_one_large_step(at, as_ana):
    version = born(make_dataset(as_ana), NOON + timedelta(seconds=7.25))
    for minutes in (1, 5, 6, 11, 29, 30, 31, 60):
        at(NOON + timedelta(minutes=minutes))
        meter_storage()
    assert byte_seconds(version.dataset.public_id) == len(CSV) * (Decimal(3600) - Decimal("7.25"))


def test_a_pause_of_the_meter_loses_nothing_and_is_cut_at_midnight(at, as_ana):
    version = born(make_dataset(as_ana), NOON)
    at(NOON + timedelta(minutes=5))
    meter_storage()
    at(NOON + timedelta(hours=30))
    meter_storage()
    assert byte_seconds(version.dataset.public_id) == len(CSV) * 30 * 3600
    days = {event.event_time.date() for event in UsageEvent.objects.all()}
    assert len(days) == 2


def test_versions_of_a_dataset_and_files_of_a_model_are_summed(at, as_ana, tmp_path):
    first = born(make_dataset(as_ana), NOON)
    second = born(datasets.add_version(as_ana, first.dataset, file=upload(CSV + b"x,1,no\n")), NOON)
    model = make_model(as_ana, tmp_path).model
    Artifact.objects.update(created_at=NOON)
    at(NOON + timedelta(minutes=5))
    assert meter_storage() == 2
    assert byte_seconds(first.dataset.public_id) == (first.size_bytes + second.size_bytes) * 300
    kept = sum(Artifact.objects.values_list("size_bytes", flat=True))
    assert byte_seconds(model.public_id) == kept * 300
    assert UsageEvent.objects.get(subject=model.public_id).subject_title == "digits"


def test_an_archived_dataset_still_takes_room_and_still_counts(at, as_ana):
    version = born(make_dataset(as_ana), NOON)
    datasets.archive_dataset(as_ana, version.dataset)
    at(NOON + timedelta(minutes=5))
    assert meter_storage() == 1


def test_each_tenant_pays_for_its_own(at, as_ana, as_cy):
    mine, theirs = born(make_dataset(as_ana), NOON), born(make_dataset(as_cy), NOON)
    at(NOON + timedelta(minutes=5))
    assert meter_storage() == 2
    for version in (mine, theirs):
        assert UsageEvent.objects.get(subject=version.dataset.public_id).tenant == version.tenant


def test_a_tenant_without_files_costs_nothing(at, tenant):
    assert meter_storage() == 0
    assert not UsageEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_beats_at_once_record_once(as_ana, monkeypatch):
    seed.seed()
    version = born(make_dataset(as_ana), NOON)
    monkeypatch.setattr(clock, "now", lambda: NOON + timedelta(minutes=10))
    counts, failed = [], []

    def beat() -> None:
        try:
            counts.append(meter_storage())
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=beat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(counts) == [0, 0, 1]
    assert byte_seconds(version.dataset.public_id) == len(CSV) * 600


def test_the_task_is_known_by_its_name():
    from celery import current_app

    import jobs.tasks  # noqa: F401

    assert "jobs.meter_storage" in current_app.tasks
