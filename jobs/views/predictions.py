"""Pages of batch predictions: the form, and the files that a job left. The job itself has its own page."""

from __future__ import annotations

import json
import shlex
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from jobs.forms_predictions import PredictionForm
from jobs.models import DatasetVersion, Job, ModelVersion
from jobs.services import job_files
from jobs.services import predictions as service
from jobs.spec_data import FITS, lookup
from jobs.specs_predictions import PredictionSpec
from jobs.streams import send_job_file
from tenants.errors import Invalid, Refused
from tenants.http import Request
from tenants.permissions import require
from tenants.views.common import needs_tenant


@needs_tenant
def prediction_new(request: Request) -> HttpResponse:
    """The form; `?version=` and `?dataset=` come from the pages of a model and of a dataset."""
    require(request.actor, "jobs.submit")
    if request.method != "POST":
        return _page(request, PredictionForm(request.actor, initial=_first_choice(request)))
    form = PredictionForm(request.actor, request.POST)
    if form.is_valid():
        try:
            spec = PredictionSpec.parse(request.actor, form.spec_data())
            job = service.submit_predictions(request.actor, spec)
        except Refused as refusal:
            form.add_refusal(refusal)
            return _page(request, form, status=refusal.status)
        messages.success(request, _("%(name)s is in line.") % {"name": job.name})
        return redirect(job)
    return _page(request, form, status=422)


@needs_tenant
@require_POST
def prediction_fields(request: Request) -> HttpResponse:
    """Datasets and columns that fit the model chosen so far."""
    require(request.actor, "jobs.submit")
    posted = request.POST.copy()
    before = PredictionForm(request.actor, posted)
    if before.version is not None:
        posted["dataset"] = before.version.public_id
    for name in [name for name in posted if name.startswith("column_")]:
        del posted[name]  # what fitted the one before need not fit this one
    form = PredictionForm(request.actor, posted)
    for field in form.inputs:
        posted[field] = form.fields[field].initial
    form = PredictionForm(request.actor, posted)
    form.forget_errors()
    return render(request, "jobs/predictions/_fields.html", {"form": form, **_links()})


@needs_tenant
@require_POST
def prediction_price(request: Request) -> HttpResponse:
    """The summary beside the form, for what is filled in so far."""
    require(request.actor, "jobs.submit")
    form = PredictionForm(request.actor, request.POST)
    return render(request, "jobs/predictions/_summary.html", _summary(request, form))


@require_GET
def job_file(request: Request, public_id: str, name: str) -> HttpResponseBase:
    file = job_files.find_file(request.actor, public_id, name)
    return send_job_file(request, request.actor, file)


@require_POST
def job_file_dataset(request: Request, public_id: str, name: str) -> HttpResponse:
    """Make a dataset of what a job left."""
    file = job_files.find_file(request.actor, public_id, name)
    try:
        version = job_files.save_as_dataset(request.actor, file, name=request.POST.get("name", ""))
    except Invalid as refusal:
        messages.error(request, refusal.detail)
        return redirect(file.job)
    messages.success(request, _("%(name)s is kept as a dataset.") % {"name": version.dataset.name})
    return redirect(version.dataset)


@require_POST
def job_files_remove(request: Request, public_id: str) -> HttpResponse:
    job = get_object_or_404(Job.objects.visible_to(request.actor), public_id=public_id)
    job_files.remove_files(request.actor, job)
    messages.success(request, _("The files are deleted."))
    return redirect(job)


def curl(spec: dict[str, Any]) -> str:
    """The same batch prediction as a command."""
    order = ("model_version", "dataset", "name", "columns", "keep", "limits", "labels")
    body = json.dumps({key: spec[key] for key in order if spec.get(key)}, ensure_ascii=False)
    return (
        f"curl -s {settings.BASE_URL}/api/v1/batch-predictions \\\n"
        '  -H "Authorization: Bearer $TAUON_TOKEN" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(body)}"
    )


def _first_choice(request: Request) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if wanted := request.GET.get("version", "").replace("\0", ""):
        chosen["model_version"] = wanted
    version = lookup(request.actor, request.GET.get("dataset", "").replace("\0", ""))
    if version is not None:
        chosen["dataset"] = version.public_id
        if not wanted and (fitting := _newest_model(request, version)):
            chosen["model_version"] = fitting.public_id
    return chosen


def _newest_model(request: Request, version: DatasetVersion) -> ModelVersion | None:
    """The newest that can read such data."""
    fitting = [recipe for recipe, formats in FITS.items() if version.format in formats]
    rows = ModelVersion.objects.visible_to(request.actor).in_use()
    rows = rows.filter(tenant=request.actor.tenant, is_chosen=True, model__recipe__in=fitting)
    return rows.order_by("-created_at", "-pk").first()


def _page(request: Request, form: PredictionForm, *, status: int = 200) -> HttpResponse:
    context = {"form": form, **_links(), **_summary(request, form)}
    return render(request, "jobs/predictions/new.html", context, status=status)


def _links() -> dict[str, str]:
    return {"upload_url": reverse("jobs:dataset_new"), "train_url": reverse("jobs:job_new")}


def _summary(request: Request, form: PredictionForm) -> dict[str, Any]:
    """Price range, what is still wrong, and the same as a command."""
    context: dict[str, Any] = {"currency": settings.CURRENCY, "problems": [], "estimate": None}
    bound = form if form.is_bound else PredictionForm(request.actor, _as_posted(form))
    if not bound.is_valid():
        context["problems"] = [_("Fill in the rest of the form to see the price.")]
        return context
    try:
        spec = PredictionSpec.parse(request.actor, bound.spec_data())
        context |= {"estimate": service.estimate_predictions(request.actor, spec), "rows": spec.rows}
        context["curl"] = curl(spec.to_dict())
    except Refused as refusal:
        context["problems"] = [fault.detail for fault in refusal.faults] or [refusal.detail]
    return context


def _as_posted(form: PredictionForm) -> dict[str, Any]:
    """The values an untouched form shows."""
    shown = {name: form[name].value() for name in form.fields}
    if form.version is not None:
        shown["dataset"] = form.version.public_id
    if form.predictor is not None:
        shown["model_version"] = form.predictor.public_id
    return {name: value for name, value in shown.items() if value is not None}
