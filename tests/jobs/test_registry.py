"""The result of a run becomes model versions: all of it once, or nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from django.conf import settings
from django.db import IntegrityError, connection

from jobs.models import Artifact, Model, ModelVersion
from jobs.services import registry
from tenants.errors import Forbidden, Hidden, Invalid
from tenants.models import AuditEntry
from tests.factories import make_user
from tests.jobs.factories_datasets import stored_files
from tests.jobs.factories_registry import MEASURED, make_finished_job, make_model, write_result
from trainer.bundle import Tampered, open_bundle
from trainer.contract import MANIFEST_FILE, Recipe


@pytest.fixture
def job(as_ana):
    return make_finished_job(as_ana)


@pytest.fixture
def before(job):
    """What storage held before anything was registered."""
    return stored_files()


def test_a_run_becomes_one_version_with_a_parent_and_its_variants(job, tmp_path):
    chosen = registry.register_run(job, attempt=None, result_dir=write_result(tmp_path / "result"))
    assert (chosen.variant, chosen.number, chosen.is_chosen) == ("int8", 1, True)
    assert (chosen.model.name, chosen.model.recipe, chosen.model.created_by) == (
        "digits", "text-classification", job.created_by,
    )  # fmt: skip
    variants = {version.variant: version for version in chosen.model.versions.all()}
    assert set(variants) == set(MEASURED)
    assert variants["original"].parent is None
    assert {variants[name].parent for name in ("int8", "prune")} == {variants["original"]}
    assert [version.is_chosen for version in variants.values()].count(True) == 1
    assert not variants["prune"].passed_gate
    assert chosen.report["verdict"].startswith("3.6x smaller")
    assert chosen.manifest["rows_trained"] == 1437
    assert "variants" not in chosen.manifest
    assert chosen.interface["sample"] == {"text": ["good thing 3"]}
    assert (chosen.job, chosen.dataset_version) == (job, job.dataset_version)
    assert AuditEntry.objects.filter(action="model.registered", target_id=chosen.model.public_id).count() == 1


def test_registering_twice_changes_nothing(job, tmp_path):
    result = write_result(tmp_path / "result")
    first = registry.register_run(job, attempt=None, result_dir=result)
    files = stored_files()
    assert registry.register_run(job, attempt=None, result_dir=result) == first
    assert ModelVersion.objects.count() == 3
    assert stored_files() == files


@pytest.mark.django_db(transaction=True)
def test_registering_twice_at_once_keeps_one_set(as_ana, tmp_path):
    job = make_finished_job(as_ana)
    result = write_result(tmp_path / "result")
    before, chosen, failed = stored_files(), [], []

    def act() -> None:
        try:
            chosen.append(registry.register_run(job, attempt=None, result_dir=result).public_id)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=act) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(set(chosen)) == 1
    assert ModelVersion.objects.count() == 3
    assert len(stored_files()) - len(before) == Artifact.objects.count() == 9


@pytest.mark.django_db(transaction=True)
def test_two_runs_of_one_name_at_once_get_two_numbers_of_one_model(as_ana, tmp_path):
    jobs = [make_finished_job(as_ana) for _ in range(3)]
    results = [write_result(tmp_path / job.public_id) for job in jobs]
    failed = []

    def act(n: int) -> None:
        try:
            registry.register_run(jobs[n], attempt=None, result_dir=results[n])
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=act, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(Model.objects.get().versions.filter(is_chosen=True).values_list("number", flat=True)) == [
        1,
        2,
        3,
    ]


def test_a_second_job_of_the_name_makes_the_next_version(as_ana, tmp_path):
    first = make_model(as_ana, tmp_path)
    second = make_model(as_ana, tmp_path, "DIGITS")
    assert first.model == second.model
    assert (first.number, second.number) == (1, 2)
    assert first.model.latest == second


def test_the_spec_may_name_the_model(as_ana, tmp_path):
    assert make_model(as_ana, tmp_path, spec={"model_name": "Sentiment"}).model.name == "Sentiment"


def test_another_recipe_gets_a_line_of_its_own(as_ana, tmp_path):
    make_model(as_ana, tmp_path)
    job = make_finished_job(as_ana)
    other = registry.register_run(
        job, attempt=None, result_dir=write_result(tmp_path / "other", recipe=Recipe.TABULAR)
    )
    assert (other.model.name, other.number) == ("digits (tabular-classification)", 1)


def test_a_run_without_a_manifest_is_no_model(job, tmp_path):
    assert registry.register_run(job, attempt=None, result_dir=tmp_path) is None
    assert Model.objects.count() == 0


def change_manifest(result: Path, **changes: object) -> None:
    raw = json.loads((result / MANIFEST_FILE).read_text())
    (result / MANIFEST_FILE).write_text(json.dumps(raw | changes))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda result: (result / MANIFEST_FILE).write_text("{"),
        lambda result: (result / MANIFEST_FILE).write_text('{"recipe": "image-classification"}'),
        lambda result: change_manifest(result, chosen="gone"),
        lambda result: change_manifest(result, variants=[]),
        lambda result: (result / "int8" / "model.onnx").write_bytes(b"changed"),
        lambda result: (result / "int8" / "model.onnx").unlink(),
        lambda result: (result / "int8" / "bundle.json").write_text("["),
        lambda result: (result / "int8" / "bundle.json").write_text("[]"),
    ],
)
def test_a_broken_result_is_named_and_leaves_nothing(job, before, tmp_path, break_it):
    result = write_result(tmp_path / "result")
    break_it(result)
    with pytest.raises(Invalid) as refused:
        registry.register_run(job, attempt=None, result_dir=result)
    assert refused.value.faults[0].code == "bad_result"
    assert stored_files() == before
    assert Model.objects.count() == ModelVersion.objects.count() == 0


def test_a_variant_may_not_name_a_place_outside_the_result(job, before, tmp_path):
    result = write_result(tmp_path / "result")
    raw = json.loads((result / MANIFEST_FILE).read_text())
    raw["variants"][1]["name"] = raw["chosen"] = "../int8"
    (result / MANIFEST_FILE).write_text(json.dumps(raw))
    with pytest.raises(Invalid, match="no plain word"):
        registry.register_run(job, attempt=None, result_dir=result)
    assert stored_files() == before


def test_a_link_in_the_result_is_not_followed(job, before, tmp_path):
    result = write_result(tmp_path / "result")
    (result / "int8" / "model.onnx").unlink()
    (result / "int8" / "model.onnx").symlink_to("/etc/passwd")
    with pytest.raises(Invalid):
        registry.register_run(job, attempt=None, result_dir=result)
    assert stored_files() == before


def test_rows_that_cannot_be_written_take_the_files_back(job, before, tmp_path, monkeypatch):
    def fail(*_args: object, **_options: object) -> None:
        raise IntegrityError("gone")

    monkeypatch.setattr(Artifact, "save", fail)
    with pytest.raises(IntegrityError):
        registry.register_run(job, attempt=None, result_dir=write_result(tmp_path / "result"))
    assert stored_files() == before
    assert Model.objects.count() == ModelVersion.objects.count() == 0


def test_a_model_at_rest_cannot_be_read(as_ana, tmp_path):
    make_model(as_ana, tmp_path)
    root = Path(settings.STORAGES["default"]["OPTIONS"]["location"])
    raw = b"".join((root / name).read_bytes() for name in stored_files())
    for canary in (b"the graph of", b"the weights of", b"sha256", b"good thing"):
        assert canary not in raw


def test_a_fetched_bundle_is_whole_and_passes_its_own_checksums(as_ana, tmp_path):
    version = make_model(as_ana, tmp_path)
    folder = registry.fetch_bundle(version, tmp_path / "replica")
    assert sorted(path.name for path in folder.iterdir()) == [
        "bundle.json",
        "model.onnx",
        "model.safetensors",
    ]
    assert (folder / "model.onnx").read_bytes().startswith(b"the graph of int8")
    assert folder.stat().st_mode & 0o777 == 0o700
    # these made-up bytes are no ONNX graph, but the checksums before it are right
    with pytest.raises(Exception) as refused:
        open_bundle(folder)
    assert not isinstance(refused.value, Tampered)


def test_a_file_is_downloaded_by_those_who_may_and_it_is_written_down(
    as_ana, as_ben, as_cy, tenant, tmp_path
):
    from tenants.http import actor_from_user

    artifact = make_model(as_ana, tmp_path).artifacts.get(name="model.onnx")
    assert b"".join(registry.open_artifact(as_ben, artifact)).startswith(b"the graph of int8")
    assert AuditEntry.objects.filter(action="model.downloaded", actor_label="ben@example.org").count() == 1
    with pytest.raises(Forbidden):
        registry.open_artifact(
            actor_from_user(make_user("vi@example.org", tenant=tenant, role="viewer")), artifact
        )
    with pytest.raises(Hidden):
        registry.open_artifact(as_cy, artifact)
