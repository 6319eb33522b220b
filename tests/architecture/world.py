"""Everything a tenant can own, made by hand: what a stranger must never see."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from billing.models import CreditNote, Invoice
from jobs.models import (
    AlertRule,
    Artifact,
    Attempt,
    Dataset,
    DatasetVersion,
    Endpoint,
    EndpointKey,
    Job,
    JobEvent,
    JobFile,
    Model,
    ModelVersion,
    Revision,
)
from jobs.states import EndpointStatus, JobStatus
from tenants import http
from tenants.models import ApiToken, Invitation, Membership, Tenant, User
from tests.factories import make_token

CANARY = "canary-of-lab"


def build(tenant: Tenant, owner: User) -> dict[str, Any]:
    """noun -> object, each carrying the canary in whatever a page might show."""
    own = {"tenant": tenant}
    dataset = Dataset.objects.create(name=CANARY, description=CANARY, created_by=owner, **own)
    data = DatasetVersion.objects.create(
        dataset=dataset, number=1, format="csv", file_name=f"{CANARY}.csv", storage_key=f"{CANARY}/data",
        sha256="0" * 64, size_bytes=10, row_count=2, created_by=owner,
        profile={"columns": [], "preview": [], "problems": [], "problem_count": 0}, **own,
    )  # fmt: skip
    job = Job.objects.create(
        name=CANARY, created_by=owner, dataset_version=data, recipe="tabular-classification", processes=1,
        spec={"name": CANARY, "recipe": "tabular-classification"}, max_time_s=60, estimate_low=0, estimate_high=1,
        status=JobStatus.SUCCEEDED, started_at=timezone.now(), finished_at=timezone.now(), last_seq=1, **own,
    )  # fmt: skip
    JobEvent.objects.create(job=job, seq=1, kind="log", data={"level": "info", "text": CANARY})
    attempt = Attempt.objects.create(
        job=job, number=1, fence="f", processes=1, lease_until=timezone.now(), ended_at=timezone.now(), **own
    )
    job_file = JobFile.objects.create(
        job=job, name=f"{CANARY}.csv", storage_key=f"{CANARY}/file", sha256="0" * 64, size_bytes=10, **own
    )
    model = Model.objects.create(name=CANARY, recipe="tabular-classification", created_by=owner, **own)
    version = ModelVersion.objects.create(
        model=model, number=1, variant="original", job=job, dataset_version=data, is_chosen=True, passed_gate=True,
        accuracy=0.9, size_bytes=10, latency_p50_ms=1, latency_p95_ms=2,
        report={
            "name": "original", "method": CANARY, "size_bytes": 10, "compressed_size_bytes": 9, "accuracy": 0.9,
            "accuracy_drop": 0.0, "holdout_rows": 10, "latency_p50_ms": 1.0, "latency_p95_ms": 2.0,
            "max_abs_difference": 0.0, "passed_gate": True, "verdict": CANARY,
        },
        manifest={"chosen": "original", "classes": ["a", "b"], "baseline_accuracy": 0.5, "rows_trained": 8,
                  "steps": 4, "machine": "test", "recipe": "tabular-classification"},
        interface={"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], "outputs": [], "classes": ["a", "b"],
                   "sample": {"x": [1.0]}},
        **own,
    )  # fmt: skip
    artifact = Artifact.objects.create(
        version=version,
        name="model.onnx",
        storage_key=f"{CANARY}/onnx",
        sha256="0" * 64,
        size_bytes=10,
        **own,
    )
    endpoint = Endpoint.objects.create(
        name=CANARY, slug=CANARY, status=EndpointStatus.STOPPED, created_by=owner, **own
    )
    revision = Revision.objects.create(endpoint=endpoint, number=1, version=version, created_by=owner, **own)
    endpoint.current = revision
    endpoint.save()
    alert = AlertRule.objects.create(
        endpoint=endpoint, name=CANARY, metric="p95_ms", threshold=1, emails=[f"{CANARY}@example.org"], **own
    )
    make_token(owner, tenant=tenant, name=CANARY)
    make_token(owner, tenant=tenant, name=f"{CANARY} key")
    invitation = Invitation.objects.create(
        email=f"{CANARY}@example.org", digest=http.digest(CANARY), expires_at=timezone.now() + timedelta(days=1),
        invited_by=owner, **own,
    )  # fmt: skip
    return {
        "tenant": tenant,
        "dataset": dataset,
        "dataset_version": data,
        "job": job,
        "attempt": attempt,
        "job_file": job_file,
        "model": model,
        "version": version,
        "artifact": artifact,
        "endpoint": endpoint,
        "alert": alert,
        "endpoint_key": EndpointKey.objects.create(
            endpoint=endpoint, token=ApiToken.objects.get(tenant=tenant, name=f"{CANARY} key"), **own
        ),
        "revision": revision,
        "token": ApiToken.objects.get(tenant=tenant, name=CANARY),
        "membership": Membership.objects.get(tenant=tenant, user=owner),
        "invitation": invitation,
        "invoice": (invoice := _invoice(tenant)),
        "note": CreditNote.objects.create(
            invoice=invoice, number=f"CN-{CANARY}", key="k", reason=CANARY, currency="USD", net=1, tax_total=0,
            total=1, off_receivable=1, to_credit=0, to_refund=0, issued_at=timezone.now(),
            content_hash="0" * 64, **own,
        ),
    }  # fmt: skip


def _invoice(tenant: Tenant) -> Invoice:
    now = timezone.now()
    return Invoice.objects.create(
        tenant=tenant, status="finalized", status_at=now, number=f"T-{CANARY}", currency="USD",
        period_start=now - timedelta(days=60), period_end=now - timedelta(days=30), through_id=0,
        seller_name="Tauon", buyer_name=CANARY, buyer_id=tenant.public_id, finalized_at=now, content_hash="0" * 64,
    )  # fmt: skip
