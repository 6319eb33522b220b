"""Pages of jobs: list, new, detail."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from billing.services.reports import cost_of
from jobs import worth
from jobs.compute import backend
from jobs.forms_columns import RECIPES
from jobs.forms_datasets import ShareForm
from jobs.forms_jobs import JobFilter, JobForm, fitting_recipe, initial_of, take_usual
from jobs.models import Job
from jobs.services import exports, live_page
from jobs.services import jobs as service
from jobs.spec_data import lookup
from jobs.specs import JobSpec
from jobs.states import JobStatus
from jobs.views.predictions import curl as curl_of_predictions
from jobs.views.sharing import share_context, share_with, unshare_from
from tenants.errors import Refused
from tenants.http import Request
from tenants.permissions import allowed, require
from tenants.views.common import needs_something_to_see, needs_tenant
from trainer.contract import COLUMNS, Recipe

TABS = (
    ("overview", gettext_lazy("Overview"), "chart-line"),
    ("events", gettext_lazy("Events"), "list"),
    ("spec", gettext_lazy("Spec"), "code"),
    ("attempts", gettext_lazy("Attempts and cost"), "wallet"),
)


@needs_something_to_see(Job)
@require_GET
def job_list(request: Request) -> HttpResponse:
    actor = request.actor
    if not actor.may("jobs.view") and not Job.objects.visible_to(actor).exists():
        require(actor, "jobs.view")
    form = JobFilter(request.GET)
    chosen = form.cleaned_data if form.is_valid() else {}
    found = service.search_jobs(actor, text=chosen.get("q", ""), label=chosen.get("label", ""))
    counts = dict(found.order_by().values_list("status").annotate(n=Count("id")))
    rows = found.filter(status=chosen["status"]) if chosen.get("status") else found
    page = Paginator(rows, 25).get_page(request.GET.get("page"))
    costs = service.costs_of(page.object_list)
    for job in page.object_list:
        job.cost = costs[job.public_id]
    context = {
        "page_obj": page,
        "chips": _chips(chosen, counts),
        "q": chosen.get("q", ""),
        "status": chosen.get("status", ""),
        "label": chosen.get("label", ""),
        "labels": [] if request.htmx else service.known_labels(actor),
        "query": "".join(f"{urlencode({name: value})}&" for name, value in chosen.items() if value),
        "any_jobs": bool(counts) or Job.objects.visible_to(actor).exists(),
        "may_submit": actor.may("jobs.submit"),
        "currency": settings.CURRENCY,
        "snippet": _curl({"name": "digits", "recipe": "image-classification", "dataset": "ds_…"}),
    }
    return render(request, "jobs/jobs/_table.html" if request.htmx else "jobs/jobs/list.html", context)


@needs_tenant
def job_new(request: Request) -> HttpResponse:
    require(request.actor, "jobs.submit")
    if request.method != "POST":
        return _new_page(request, JobForm(request.actor, initial=_first_choice(request)))
    form = JobForm(request.actor, request.POST)
    if form.is_valid():
        try:
            job = service.submit_job(request.actor, JobSpec.parse(request.actor, form.spec_data()))
        except Refused as refusal:
            form.add_refusal(refusal)
            return _new_page(request, form, status=refusal.status)
        messages.success(request, _("%(name)s is in line.") % {"name": job.name})
        return redirect(job)
    return _new_page(request, form, status=422)


@needs_tenant
@require_POST
def job_new_data(request: Request) -> HttpResponse:
    """The datasets and columns that fit what is chosen so far."""
    require(request.actor, "jobs.submit")
    posted = request.POST.copy()
    form = JobForm(request.actor, posted)
    searched = request.headers.get("HX-Trigger-Name") == "find"
    if form.found and (form.version is None or (searched and form.version not in form.found)):
        # the dataset chosen before does not fit the new recipe, or is none of those looked for
        posted["dataset"] = form.found[0].public_id
        form = JobForm(request.actor, posted, like=form)
    known = {name for name, _label in form.fields["label"].widget.choices}
    for name in COLUMNS:
        if posted.get(name) not in known or name not in form.roles:
            posted.pop(name, None)
    switched = request.htmx.trigger_name == "recipe"
    if switched:
        take_usual(posted, form.chosen_recipe)
    form = JobForm(request.actor, posted, like=form)
    for name in form.roles:
        posted.setdefault(name, form.initial.get(name) or "")
    posted.setlist("features", [one for one in posted.getlist("features") if one in known])
    form = JobForm(request.actor, posted, like=form)
    form.forget_errors()  # nobody has asked yet whether it is right
    context = {"form": form, "upload_url": reverse("jobs:dataset_new"), "switched": switched}
    return render(request, "jobs/jobs/_data.html", context)


@needs_tenant
@require_POST
def job_new_price(request: Request) -> HttpResponse:
    """The summary beside the form, for what is filled in so far."""
    require(request.actor, "jobs.submit")
    posted = request.POST.copy()
    posted["name"] = posted.get("name") or "…"  # a price needs no name
    return render(request, "jobs/jobs/_summary.html", _summary(request, JobForm(request.actor, posted)))


@require_GET
def job_detail(request: Request, public_id: str) -> HttpResponse:
    return _detail_page(request, _job(request, public_id))


@require_POST
def job_share(request: Request, public_id: str) -> HttpResponse:
    job = _job(request, public_id)
    form = share_with(request, job)
    return redirect(job) if form is None else _detail_page(request, job, share_form=form, status=422)


@require_POST
def job_unshare(request: Request, public_id: str) -> HttpResponse:
    job = _job(request, public_id)
    unshare_from(request, job)
    return redirect(job)


@require_GET
def job_outcome(request: Request, public_id: str) -> HttpResponse:
    """What the page shows once the job has ended; asked for by the live page."""
    return render(
        request, "jobs/jobs/_outcome.html", {**_outcome(request, _job(request, public_id)), "again": True}
    )


@require_GET
def job_tensorboard(request: Request, public_id: str) -> HttpResponse:
    """The metrics as a file that TensorBoard opens."""
    return exports.download(_job(request, public_id))


@require_POST
def job_cancel(request: Request, public_id: str) -> HttpResponse:
    job = service.cancel_job(request.actor, _job(request, public_id))
    if job.status == JobStatus.CANCELLED:
        messages.success(request, _("%(name)s is stopped.") % {"name": job.name})
    else:
        messages.info(
            request, _("%(name)s is stopping; its processes end within seconds.") % {"name": job.name}
        )
    return redirect(job)


@needs_tenant
@require_GET
def job_clone(request: Request, public_id: str) -> HttpResponse:
    """The form of a new job, filled in like this one."""
    job = _job(request, public_id)
    require(request.actor, "jobs.submit")
    if job.predictor is not None:
        query = urlencode({"version": job.predictor.public_id, "dataset": job.dataset_version.public_id})
        return redirect(f"{reverse('jobs:prediction_new')}?{query}")
    initial = initial_of(job.spec)
    version = lookup(request.actor, initial.get("dataset") or "")
    form = JobForm(request.actor, initial=initial, extra_version=version)
    return _new_page(request, form, cloned_from=job)


def _detail_page(
    request: Request, job: Job, *, share_form: ShareForm | None = None, status: int = 200
) -> HttpResponse:
    tab = request.GET.get("tab", "overview")
    mine = request.actor.tenant is not None and job.tenant_id == request.actor.tenant.pk
    context = {
        "job": job,
        "tab": tab if tab in {key for key, _l, _i in TABS} else "overview",
        "tabs": [
            {"key": key, "label": label, "icon": icon, "url": f"?tab={key}", "count": None}
            for key, label, icon in TABS
        ],
        **_outcome(request, job),
        **live_page.first_state(job),
        "facts": live_page.facts(job),
        "events": live_page.events(job) if tab == "events" else [],
        "attempts": live_page.attempts(job) if tab == "attempts" else [],
        "cost": cost_of(job.tenant, job.public_id),
        "currency": settings.CURRENCY,
        "spec_json": json.dumps(_in_order(job.spec), indent=2, ensure_ascii=False),
        "curl": curl_of_predictions(job.spec) if job.predictor_id else _curl(_in_order(job.spec)),
        "statuses": list(JobStatus),
        "may_clone": mine and request.actor.may("jobs.submit"),
        "is_guest": not mine,
        **share_context(request, job, share_form),
    }
    return render(request, "jobs/jobs/detail.html", context, status=status)


def _new_page(request: Request, form: JobForm, *, status: int = 200, **more: Any) -> HttpResponse:
    context = {"form": form, "recipes": RECIPES, "upload_url": reverse("jobs:dataset_new"), **more}
    return render(request, "jobs/jobs/new.html", {**context, **_summary(request, form)}, status=status)


def _first_choice(request: Request) -> dict[str, Any]:
    """A link from a dataset's page brings its dataset, and with it the recipe that fits."""
    given = request.GET.get("dataset")
    version = lookup(request.actor, given) if given else None
    if version is not None:
        text = [one for one in version.profile.get("columns", []) if one.get("type") == "text"]
        wordy = any((one.get("distinct") or 10**9) > version.row_count / 2 for one in text)
        tables = "text-classification" if wordy else "tabular-classification"
        recipe = "image-classification" if version.format == "images" else tables
        return {"recipe": recipe, "dataset": version.public_id, "name": version.dataset.name}
    return {"recipe": fitting_recipe(request.actor) or Recipe.IMAGE}


def _summary(request: Request, form: JobForm) -> dict[str, Any]:
    """Price range, what is still wrong, and the same job as a command."""
    there = backend().capacity()
    context: dict[str, Any] = {
        "capacity": there,
        "currency": settings.CURRENCY,
        "problems": [],
        "estimate": None,
    }
    bound = form if form.is_bound else JobForm(request.actor, _as_posted(form), like=form)
    if not bound.is_valid():
        context["problems"] = [_("Fill in the rest of the form to see the price.")]
        return context
    data = bound.spec_data()
    try:
        spec = JobSpec.parse(request.actor, data)
        context["estimate"] = service.estimate_job(request.actor, spec)
        context["curl"] = _curl(spec.to_dict())
    except Refused as refusal:
        context["problems"] = [fault.detail for fault in refusal.faults] or [refusal.detail]
    return context


def _as_posted(form: JobForm) -> dict[str, Any]:
    """The values an untouched form shows."""
    shown = {name: form[name].value() for name in form.fields}
    if form.version is not None:
        shown["dataset"] = form.version.public_id
    shown["name"] = shown["name"] or "…"
    return {name: value for name, value in shown.items() if value is not None}


def _chips(chosen: dict[str, Any], counts: dict[str, int]) -> list[dict[str, Any]]:
    """Every status with how many there are; a click keeps the search."""
    chips = []
    for value, label in (("", _("All")), *JobStatus.choices):
        count = counts.get(value, 0) if value else sum(counts.values())
        if value and not count and chosen.get("status") != value:
            continue
        kept = {"q": chosen.get("q"), "status": value, "label": chosen.get("label")}
        query = urlencode({key: one for key, one in kept.items() if one})
        active = (chosen.get("status") or "") == value
        chips.append({"label": label, "count": count, "url": f"?{query}", "active": active})
    return chips


def _outcome(request: Request, job: Job) -> dict[str, Any]:
    return {
        "job": job,
        "may_cancel": not job.is_ended and allowed(request.actor, "jobs.cancel", job),
        **_predictions(request, job),
        **_result(request, job),
    }


def _predictions(request: Request, job: Job) -> dict[str, Any]:
    """What a batch prediction left; its rows are for those who may download them."""
    if not job.result or job.predictor is None:
        return {}
    return {
        "job_files": job.files.all(),
        "answers": live_page.answers(job),
        "may_download": allowed(request.actor, "jobs.download", job),
        "may_keep": allowed(request.actor, "jobs.submit", job),
        "sees_predictor": allowed(request.actor, "models.view", job.predictor),
    }


def _result(request: Request, job: Job) -> dict[str, Any]:
    """What it made; the report and the way to an endpoint are for those who may see the model."""
    made = live_page.result(job)
    sees = made is not None and allowed(request.actor, "models.view", made["chosen"])
    mine = request.actor.tenant is not None and job.tenant_id == request.actor.tenant.pk
    in_use = made is not None and made["chosen"].shelved_at is None
    may_publish = mine and in_use and request.actor.may("endpoints.publish")
    worthless = worth.warning(made["chosen"]) if made is not None else ""
    return {"result": made, "sees_model": sees, "may_publish": may_publish, "worthless": worthless}


def _in_order(spec: dict[str, Any]) -> dict[str, Any]:
    """As a person would write it; the database keeps keys in an order of its own."""
    order = (
        "name", "recipe", "dataset", "columns", "hyperparameters", "training", "resources", "limits",
        "compression",
    )  # fmt: skip
    return {key: spec[key] for key in (*order, *spec) if key in spec}


def _curl(spec: dict[str, Any]) -> str:
    body = json.dumps(spec, ensure_ascii=False)
    return (
        f"curl -s {settings.BASE_URL}/api/v1/jobs \\\n"
        '  -H "Authorization: Bearer $TAUON_TOKEN" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(body)}"
    )


def _job(request: Request, public_id: str) -> Job:
    rows = Job.objects.visible_to(request.actor).select_related(
        "tenant", "created_by", "dataset_version__dataset", "predictor__model"
    )
    return get_object_or_404(rows, public_id=public_id)
