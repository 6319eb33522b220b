"""A run whose loss becomes no number leaves its last good weights to the job: kept encrypted, and downloaded."""

from __future__ import annotations

import pytest
from django.urls import reverse
from safetensors.numpy import load

from jobs import storage
from jobs.services.last_good import keep_last_good
from jobs.services.run_files import run_folder
from jobs.states import JobStatus, Reason
from tests.jobs.dispatch_house import run_with
from tests.jobs.factories_datasets import stored_files
from tests.jobs.factories_jobs import make_job, upload_digits
from tests.jobs.test_compute import QUICK, Worker
from trainer.contract import LAST_GOOD_FILE, EventKind

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.slow
def test_a_real_run_that_diverges_leaves_weights_that_a_member_can_download(as_ben, browser_of, ben, cy):
    job = make_job(
        as_ben, upload_digits(as_ben, images=200),
        hyperparameters={"epochs": 30, "optimizer": "sgd", "learning_rate": 1e9},
        training={"checkpoint_every_steps": 1, "keep_checkpoints": 20, "schedule": "constant", "warmup_steps": 0},
        compression=QUICK,
    )  # fmt: skip
    worker = Worker(job)
    worker.join(240)
    job = job.reload()
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.DIVERGED), job.error
    assert not run_folder(worker.attempt).exists()
    step = int(job.error.rpartition("step ")[2].rstrip("."))
    url = reverse("jobs:job_file", args=[job.public_id, LAST_GOOD_FILE])
    page = browser_of(ben).get(job.get_absolute_url())
    assert url in page.content.decode()
    answer = browser_of(ben).get(url)
    assert answer.status_code == 200
    weights = load(b"".join(answer.streaming_content))
    assert "head.1.weight" in weights
    assert f'"step":"{step}"'.encode() in b"".join(
        storage.open_chunks(job.tenant, job.files.get().storage_key)
    )
    assert browser_of(cy).get(url).status_code == 404


def left_behind(content: bytes = b"weights"):
    def diverge(engine, turn):
        result = engine.gang.folder / "result"
        result.mkdir()
        (result / LAST_GOOD_FILE).write_bytes(content)
        engine.say(EventKind.ERROR, reason="diverged", text="The loss became nan at step 3.", traceback="...")
        return 1

    return diverge


def test_what_is_kept_belongs_to_the_job_and_is_kept_once(as_ben, flowers, quick, tmp_path):
    job, _, _ = run_with(left_behind(), as_ben, flowers)
    (kept,) = job.files.all()
    assert (kept.name, kept.size_bytes) == (LAST_GOOD_FILE, 7)
    assert b"".join(storage.open_chunks(job.tenant, kept.storage_key)) == b"weights"
    (tmp_path / LAST_GOOD_FILE).write_bytes(b"others")
    assert keep_last_good(job, result_dir=tmp_path) == kept
    assert job.files.count() == 1


def test_a_link_is_no_result(as_ben, flowers, quick, tmp_path):
    job, _, _ = run_with(lambda engine, turn: 1, as_ben, flowers)
    secret = tmp_path / "secret"
    secret.write_bytes(b"of this machine")
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / LAST_GOOD_FILE).symlink_to(secret)
    assert keep_last_good(job, result_dir=tmp_path / "result") is None
    assert not job.files.exists()


def test_without_room_for_the_weights_the_reason_is_still_the_loss(as_ben, flowers, quick, monkeypatch):
    before = stored_files()

    def full(*_given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "put", full)
    job, _, _ = run_with(left_behind(), as_ben, flowers)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.DIVERGED)
    assert not job.files.exists()
    assert stored_files() == before
    said = [event.data["text"] for event in job.events.filter(kind="log")]
    assert any("could not be kept" in text for text in said)
