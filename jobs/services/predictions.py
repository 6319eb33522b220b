"""Batch predictions: what one would cost, submitting it, its run folder, and what it left."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from django.db import transaction
from django.utils.translation import gettext as _

from billing.services import locks, metering, prices
from jobs import storage
from jobs.models import Attempt, Job, JobFile
from jobs.services import registry
from jobs.services.job_files import is_ours, prepare_file, store_file
from jobs.services.jobs import Estimate, price_range, put_in_line
from jobs.services.prediction_rows import lay_out_rows
from jobs.services.progress import Fenced, storable
from jobs.specs_predictions import PredictionSpec, rows_of
from jobs.states import JobKind
from tenants import audit
from tenants.actor import SYSTEM, Actor
from tenants.errors import Invalid
from tenants.permissions import require
from trainer.contract import (
    BUNDLE_DIR,
    MANIFEST_FILE,
    NEEDS,
    PREDICTIONS_CSV,
    PREDICTIONS_JSONL,
    SPEC_FILE,
    Learns,
    PredictManifest,
    PredictSpec,
    Recipe,
)

FILES = (PREDICTIONS_CSV, PREDICTIONS_JSONL)
PROCESS_METER = "predict.process"
ROWS_METER = "predict.rows"
PART_ROWS = 10_000
# Rough figures for a price range, never for a bill.
STARTUP_S = 3.0
READ_ROW_S = 50e-6  # reading, checking and writing one row
TEXT_STEPS = 100  # a language model is asked once for each character it writes


def estimate_predictions(actor: Actor, spec: PredictionSpec) -> Estimate:
    """The price range of a batch prediction at today's prices: its process by the second, and its rows."""
    require(actor, "jobs.submit")
    high_s = spec.limits.max_time_s
    return price_range(
        actor,
        [(PROCESS_METER, _("Prediction processes"), 1)],
        counted=[(ROWS_METER, _("Predicted rows"), spec.rows)],
        low_s=min(high_s, round(likely_seconds(spec))),
        high_s=high_s,
        max_spend=spec.limits.max_spend,
    )


def likely_seconds(spec: PredictionSpec) -> float:
    """How long it probably takes: the latency that was measured when the model was made, row after row."""
    steps = TEXT_STEPS if NEEDS[Recipe(spec.predictor.model.recipe)].learns is Learns.TEXT else 1
    return STARTUP_S + spec.rows * (READ_ROW_S + steps * spec.predictor.latency_p50_ms / 1000)


def submit_predictions(actor: Actor, spec: PredictionSpec) -> Job:
    """Put a batch prediction in line and wake the scheduler."""
    require(actor, "jobs.submit")
    return put_in_line(
        actor,
        spec.version,
        estimate_predictions(actor, spec),
        limits=spec.limits,
        kind=JobKind.PREDICTION,
        predictor=spec.predictor,
        name=spec.name,
        recipe=spec.predictor.model.recipe,
        spec=spec.to_dict(),
        processes=1,
    )


def owed_at_end(job: Job) -> Decimal:
    """What is added to the bill when the job succeeds; a spend limit must leave room for it."""
    if job.kind != JobKind.PREDICTION:
        return Decimal(0)
    items = [(ROWS_METER, "standard", rows_of(job.dataset_version), 1)]
    return prices.estimate(items=items, tenant=job.tenant)


def lay_out(job: Job, attempt: Attempt, folder: Path) -> None:
    """Write the run folder: the model and the rows in clear, and the spec."""
    assert job.predictor is not None
    registry.fetch_bundle(job.predictor, folder / BUNDLE_DIR)
    columns, keep = job.spec["columns"], tuple(job.spec["keep"])
    rows = lay_out_rows(job.dataset_version, folder, columns=dict.fromkeys([*columns.values(), *keep]))
    spec = PredictSpec(run_id=attempt.public_id, rows=rows, columns=columns, keep=keep, part_rows=PART_ROWS)
    (folder / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")


def keep_predictions(job: Job, *, attempt: Attempt | None, result_dir: Path) -> None:
    """Keep what a run left, all or nothing, and meter its rows; Fenced if the attempt is over. Safe to run twice.

    As with models, a quota of storage does not stop it: the work is done and paid for.
    """
    if job.files.exists():
        return
    manifest = PredictManifest.from_json((result_dir / MANIFEST_FILE).read_text(encoding="utf-8"))
    files = [prepare_file(job, name) for name in FILES]
    try:
        # files first, rows after: a row never names a file that is not there
        for file in files:
            _store(file, result_dir / file.name, manifest.files.get(file.name))
        with transaction.atomic():
            # billing's gate before the attempt's row and the job's: the order of everybody else
            locks.pass_with_usage(job.tenant_id)
            if attempt is not None:
                _hold(attempt)
            _meter(job, manifest.answered)
            locked = Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
            if locked.files.exists():
                _delete(files)  # somebody was faster
                return
            JobFile.objects.bulk_create(files)
            result = {
                "rows": manifest.rows, "answered": manifest.answered, "bad": manifest.bad,
                "problems": list(manifest.problems), "preview": list(manifest.preview),
            }  # fmt: skip
            Job.objects.filter(pk=job.pk).update(result=storable(result))
            audit.record(SYSTEM, "job.predicted", job, rows=manifest.rows, answered=manifest.answered)
    except BaseException:
        _delete(files)
        raise


def _hold(attempt: Attempt) -> None:
    """Nobody may end it until the rows are written. An upload takes its time: its lease may have run out."""
    live = Attempt.objects.select_for_update().filter(pk=attempt.pk, fence=attempt.fence, ended_at=None)
    if live.first() is None:
        raise Fenced


def _meter(job: Job, answered: int) -> None:
    """Rows are paid for once they are delivered: a run that was stopped or lost owes none."""
    if answered:
        metering.record_usage(
            job.tenant,
            meter=ROWS_METER,
            quantity=answered,
            source="batch-prediction",
            key=job.public_id,
            subject=job.public_id,
            subject_title=job.name,
            user_label=job.created_by.email if job.created_by else "",
            dims={
                "labels": job.spec.get("labels") or {}
            },  # budgets and reports ask for them, as for its seconds
        )


def _store(file: JobFile, path: Path, expected: str | None) -> None:
    if not is_ours(path):
        raise Invalid.at(
            "/result", "bad_result", _("The result of the run has no %(name)s.") % {"name": file.name}
        )
    store_file(file, path)
    if file.sha256 != expected:
        text = _("The result of the run cannot be used: %(why)s.")
        raise Invalid.at("/result", "bad_result", text % {"why": file.name})


def _delete(files: list[JobFile]) -> None:
    for file in files:
        storage.delete(file.storage_key)
