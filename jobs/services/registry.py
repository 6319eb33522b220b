"""The registry: the result of a run becomes a model version with its variants, files and lineage."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from django.db import transaction
from django.db.models import Max, Value
from django.db.models.functions import Lower
from django.utils.translation import gettext as _

from jobs import storage
from jobs.models import Artifact, Attempt, Job, Model, ModelVersion
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.errors import Conflict, Invalid
from tenants.models import Tenant
from tenants.models.base import new_public_id
from tenants.permissions import require
from trainer.contract import (
    BUNDLE_FILE,
    MANIFEST_FILE,
    ONNX_FILE,
    SAFETENSORS_FILE,
    Manifest,
    VariantReport,
)

ORIGINAL = "original"
FILES = (BUNDLE_FILE, ONNX_FILE, SAFETENSORS_FILE)
NEEDED = (BUNDLE_FILE, ONNX_FILE)
MAX_BUNDLE_BYTES = 64 * 1024 * 1024
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}$")


def register_run(job: Job, *, attempt: Attempt | None, result_dir: Path) -> ModelVersion | None:
    """Keep what a run left in `result_dir`, all or nothing; returns the chosen one, None without a manifest.

    Safe to run twice: a job that is registered already only gets its chosen version returned. A quota of
    storage does not stop it: the training is done and paid for, and losing the model would help nobody.
    """
    if known := chosen_of(job):
        return known
    manifest = _read_manifest(result_dir)
    if manifest is None:
        return None
    tenant = job.tenant
    versions: dict[str, ModelVersion] = {}
    artifacts: list[Artifact] = []
    try:
        # files first, rows after: a row never names a file that is not there
        for report in manifest.variants:
            version = _version(job, manifest, report, _read_bundle(result_dir / report.name))
            versions[report.name] = version
            for name in FILES:
                if (result_dir / report.name / name).is_file():
                    artifacts.append(_prepared(version, name))
                    _store(tenant, artifacts[-1], result_dir / report.name / name, version.interface)
        with transaction.atomic():
            locked = Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
            if known := chosen_of(locked):
                _delete_files(artifacts)  # somebody was faster
                return known
            _save(locked, attempt, manifest, versions, artifacts)
    except BaseException:
        _delete_files(artifacts)
        raise
    return versions[manifest.chosen]


def chosen_of(job: Job) -> ModelVersion | None:
    """The variant the gate picked of this job's run, once it is registered."""
    return ModelVersion.objects.filter(job=job, is_chosen=True).select_related("model").first()


def fetch_bundle(version: ModelVersion, folder: Path) -> Path:
    """Write the version's files in clear into `folder`, for a worker that checks them by bundle.json."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # bundle.json last: a folder that has it is complete
    for artifact in sorted(version.artifacts.all(), key=lambda artifact: artifact.name == BUNDLE_FILE):
        storage.fetch_to(version.tenant, artifact.storage_key, folder / artifact.name)
    return folder


def open_artifact(actor: Actor, artifact: Artifact) -> Iterator[bytes]:
    """The plain bytes of one file, for somebody who may download it."""
    require(actor, "models.download", artifact.version)
    if artifact.version.files_deleted_at is not None:
        text = _("%(version)s was archived and its files are deleted. Its report stays.")
        raise Conflict(text % {"version": artifact.version})
    audit.record(
        actor, "model.downloaded", artifact.version.model, version=str(artifact.version), file=artifact.name
    )
    return storage.open_chunks(artifact.tenant, artifact.storage_key)


def _save(
    job: Job,
    attempt: Attempt | None,
    manifest: Manifest,
    versions: dict[str, ModelVersion],
    artifacts: list[Artifact],
) -> None:
    model = _model_of(job, manifest)
    number = (model.versions.aggregate(most=Max("number"))["most"] or 0) + 1
    for name in sorted(versions, key=lambda name: name != ORIGINAL):  # the parent before its children
        version = versions[name]
        version.model, version.number = model, number
        version.parent = None if name == ORIGINAL else versions[ORIGINAL]
        version.save(force_insert=True)
    for artifact in artifacts:
        artifact.version = artifact.version  # its key is known now that the version is saved
        artifact.save(force_insert=True)
    audit.record(
        SYSTEM, "model.registered", model,
        version=number, chosen=manifest.chosen, job=job.public_id,
        attempt=attempt.number if attempt else None,
    )  # fmt: skip


def _model_of(job: Job, manifest: Manifest) -> Model:
    """The line this run belongs to, locked. A line keeps one recipe; another gets a line of its own."""
    # the tenant's lock puts two first runs of the same name in order
    Tenant.objects.select_for_update(no_key=True).get(pk=job.tenant_id)
    name = str(job.spec.get("model_name") or job.name)[:120]
    model = _line(job, name, manifest)
    if model.recipe == manifest.recipe:
        return model
    # should that name be taken by yet another recipe, the run is not lost for it
    return _line(job, f"{name[:80]} ({manifest.recipe})", manifest)


def _line(job: Job, name: str, manifest: Manifest) -> Model:
    known = Model.objects.select_for_update(of=("self",)).filter(tenant=job.tenant, archived_at=None)
    # compared as the database's own constraint compares
    found = known.annotate(folded=Lower("name")).filter(folded=Lower(Value(name))).first()
    return found or Model.objects.create(
        tenant=job.tenant, name=name, recipe=manifest.recipe, created_by=job.created_by
    )


def _version(job: Job, manifest: Manifest, report: VariantReport, interface: dict[str, Any]) -> ModelVersion:
    whole = {key: value for key, value in asdict(manifest).items() if key != "variants"}
    return ModelVersion(
        public_id=new_public_id("ver"),
        tenant=job.tenant,
        variant=report.name,
        job=job,
        dataset_version_id=job.dataset_version_id,
        is_chosen=report.name == manifest.chosen,
        passed_gate=report.passed_gate,
        accuracy=report.accuracy,
        size_bytes=report.size_bytes,
        latency_p50_ms=report.latency_p50_ms,
        latency_p95_ms=report.latency_p95_ms,
        report=_finite(asdict(report)),
        manifest=_finite(whole),
        interface=interface,
    )


def _prepared(version: ModelVersion, name: str) -> Artifact:
    key = f"tenants/{version.tenant.public_id}/models/{version.public_id}/{name}"
    return Artifact(tenant=version.tenant, version=version, name=name, storage_key=key)


def _store(tenant: Tenant, artifact: Artifact, path: Path, interface: dict[str, Any]) -> None:
    with path.open("rb") as file:
        stored = storage.put(tenant, artifact.storage_key, storage.file_chunks(file))
    expected = interface.get("sha256", {}).get(artifact.name)
    if expected is not None and stored.sha256 != expected:
        _refuse(_("%(name)s does not match its checksum in bundle.json") % {"name": artifact.name})
    artifact.sha256, artifact.size_bytes = stored.sha256, stored.size_bytes


def _delete_files(artifacts: list[Artifact]) -> None:
    for artifact in artifacts:
        storage.delete(artifact.storage_key)


def _read_manifest(result_dir: Path) -> Manifest | None:
    path = result_dir / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        _refuse(_("manifest.json cannot be read: %(why)s") % {"why": error})
    names = [report.name for report in manifest.variants]
    if len(set(names)) != len(names) or ORIGINAL not in names or manifest.chosen not in names:
        _refuse(_("manifest.json names no original, no chosen variant, or one variant twice"))
    if any(not _NAME.match(name) for name in names):
        _refuse(_("manifest.json names a variant that is no plain word"))
    for report in manifest.variants:
        measured = (report.accuracy, report.latency_p50_ms, report.latency_p95_ms)
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in measured):
            _refuse(_("%(name)s was not measured completely") % {"name": report.name})
    return manifest


def _read_bundle(folder: Path) -> dict[str, Any]:
    for name in NEEDED:
        # a link would let a run hand out a file of this machine as part of a model
        if not (folder / name).is_file() or (folder / name).is_symlink() or folder.is_symlink():
            _refuse(_("%(folder)s has no file %(name)s") % {"folder": folder.name, "name": name})
    if (folder / SAFETENSORS_FILE).is_symlink():
        _refuse(_("%(folder)s has no file %(name)s") % {"folder": folder.name, "name": SAFETENSORS_FILE})
    if (folder / BUNDLE_FILE).stat().st_size > MAX_BUNDLE_BYTES:
        _refuse(_("bundle.json is too large"))
    try:
        bundle = json.loads((folder / BUNDLE_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        _refuse(_("bundle.json cannot be read: %(why)s") % {"why": error})
    if not isinstance(bundle, dict):
        _refuse(_("bundle.json is no object"))
    return _finite(bundle)


def _finite(value: Any) -> Any:
    """JSON in the database knows no NaN: what was not a number becomes null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _refuse(why: str) -> NoReturn:
    raise Invalid.at(
        "/result", "bad_result", _("The result of the run cannot be used: %(why)s.") % {"why": why}
    )
