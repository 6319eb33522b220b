"""Pages of models, their versions and files."""

from __future__ import annotations

from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import Count, Max, Prefetch
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from jobs import comparison, report, worth
from jobs.forms_datasets import ListFilter, ShareForm
from jobs.models import Artifact, Dataset, Endpoint, Job, Model, ModelVersion
from jobs.said import said
from jobs.services import cleaning, shelf
from jobs.services import registry as service
from jobs.streams import send_artifact
from jobs.views.sharing import share_context, share_with, unshare_from
from jobs.views.shelf import shelved
from jobs.words import QUALITIES, recipe_label
from tenants.http import Request
from tenants.permissions import allowed, require
from tenants.views.common import needs_something_to_see
from trainer.contract import NEEDS, Learns


@needs_something_to_see(Model)
@require_GET
def model_list(request: Request) -> HttpResponse:
    seen = Model.objects.visible_to(request.actor)
    if not seen.exists():
        require(request.actor, "models.view")
    form = ListFilter(request.GET or None)
    wanted = form.cleaned_data if form.is_bound and form.is_valid() else {}
    archived = wanted.get("show") == "archived"
    on_shelf = seen.filter(archived_at__isnull=not archived)
    if text := wanted.get("q"):
        on_shelf = on_shelf.filter(name__icontains=text)
    chosen = ModelVersion.objects.filter(is_chosen=True).order_by("-number").defer("interface", "manifest")
    if not archived:
        chosen = chosen.filter(archived_at=None)
    rows = (
        on_shelf.annotate(newest=Max("versions__created_at"), runs=Count("versions__number", distinct=True))
        .prefetch_related(Prefetch("versions", queryset=chosen, to_attr="chosen"))
        .order_by("-newest", "-pk")
    )
    context = {
        "form": form,
        "page_obj": Paginator(rows, 25).get_page(request.GET.get("page")),
        "query": "".join(f"{urlencode({name: value})}&" for name, value in wanted.items() if value),
        "filtered": bool(wanted.get("q")) or archived,
        "has_archived": archived or seen.exclude(archived_at=None).exists(),
        "may_train": request.actor.may("jobs.submit"),
    }
    return render(request, "jobs/models/list.html", context)


@require_GET
def model_detail(request: Request, public_id: str) -> HttpResponse:
    return _model_page(request, _model(request, public_id))


@require_POST
def model_archive(request: Request, public_id: str) -> HttpResponse:
    model = _model(request, public_id)
    return shelved(
        request, model, lambda: shelf.archive_model(request.actor, model),
        done=_("“%(name)s” is archived.") % {"name": model.name}, then="jobs:model_list",
    )  # fmt: skip


@require_POST
def model_restore(request: Request, public_id: str) -> HttpResponse:
    model = _model(request, public_id)
    return shelved(
        request, model, lambda: shelf.restore_model(request.actor, model),
        done=_("“%(name)s” is back.") % {"name": model.name},
    )  # fmt: skip


@require_POST
def model_share(request: Request, public_id: str) -> HttpResponse:
    model = _model(request, public_id)
    form = share_with(request, model)
    return redirect(model) if form is None else _model_page(request, model, share_form=form, status=422)


@require_POST
def model_unshare(request: Request, public_id: str) -> HttpResponse:
    model = _model(request, public_id)
    unshare_from(request, model)
    return redirect(model)


@require_GET
def version_detail(request: Request, public_id: str, version_id: str) -> HttpResponse:
    """The compression report: what was, what is, and whether it is worth it."""
    version = _version(request, public_id, version_id)
    variants = list(version.model.versions.filter(number=version.number).select_related("job"))
    variants.sort(key=lambda one: (one.variant != service.ORIGINAL, -one.size_bytes, one.variant))
    original = next((one for one in variants if one.variant == service.ORIGINAL), version)
    chosen = next((one for one in variants if one.is_chosen), version)
    after = version if version.variant != service.ORIGINAL else chosen
    found = report.build(variants, original)
    actor = request.actor
    mine = actor.tenant is not None and version.tenant_id == actor.tenant.pk
    in_use = version.shelved_at is None
    may_shelve = mine and version.model.archived_at is None and allowed(actor, "models.archive", version)
    context = {
        "version": version,
        "model": version.model,
        "report": found,
        "original": original,
        "after": after,
        "chosen": chosen,
        "worthless": worth.warning(after),
        "is_compressed": after.variant != service.ORIGINAL,
        "deltas": _deltas(original, after),
        "against_eager": comparison.times(found.eager_ms, after.latency_p50_ms) if found.eager_ms else None,
        "facts": _facts(version),
        "inputs": version.interface.get("inputs", []),
        "outputs": version.interface.get("outputs", []),
        "artifacts": version.artifacts.order_by("name"),
        "may_download": version.files_deleted_at is None and allowed(actor, "models.download", version),
        "may_publish": mine and in_use and actor.may("endpoints.publish"),
        "may_predict": mine and in_use and actor.may("jobs.submit"),
        "may_archive": may_shelve and in_use,
        "may_restore": may_shelve and not in_use and version.files_deleted_at is None,
        "deleted_on": cleaning.deleted_on(version.shelved_at),
        "grace_days": settings.ARCHIVE_GRACE_DAYS,
        "endpoints": Endpoint.objects.visible_to(actor).filter(current__version=version).order_by("name"),
        **_lineage(request, version),
    }
    return render(request, "jobs/models/version.html", context)


@require_POST
def version_archive(request: Request, public_id: str, version_id: str) -> HttpResponse:
    version = _version(request, public_id, version_id)
    return shelved(
        request, version, lambda: shelf.archive_version(request.actor, version),
        done=_("Version %(number)s is archived.") % {"number": version.number}, then=version.model,
    )  # fmt: skip


@require_POST
def version_restore(request: Request, public_id: str, version_id: str) -> HttpResponse:
    version = _version(request, public_id, version_id)
    return shelved(
        request, version, lambda: shelf.restore_version(request.actor, version),
        done=_("Version %(number)s is back.") % {"number": version.number},
    )  # fmt: skip


@require_GET
def artifact_download(request: Request, public_id: str, version_id: str, name: str) -> HttpResponseBase:
    rows = Artifact.objects.visible_to(request.actor).select_related("tenant", "version__model")
    artifact = get_object_or_404(
        rows, name=name, version__public_id=version_id, version__model__public_id=public_id
    )
    return send_artifact(request, request.actor, artifact)


def _model(request: Request, public_id: str) -> Model:
    rows = Model.objects.visible_to(request.actor).select_related("tenant", "created_by")
    return get_object_or_404(rows, public_id=public_id)


def _version(request: Request, public_id: str, version_id: str) -> ModelVersion:
    rows = ModelVersion.objects.visible_to(request.actor).select_related(
        "model", "job", "dataset_version__dataset"
    )
    return get_object_or_404(rows, public_id=version_id, model__public_id=public_id)


def _model_page(
    request: Request, model: Model, *, share_form: ShareForm | None = None, status: int = 200
) -> HttpResponse:
    versions = (
        model.versions.select_related("job", "dataset_version__dataset")
        .defer("interface", "manifest")
        .order_by("-number", "variant")
    )
    runs = []
    for number, group in groupby(versions, key=lambda version: version.number):
        variants = list(group)
        chosen = next((one for one in variants if one.is_chosen), variants[0])
        original = next((one for one in variants if one.variant == service.ORIGINAL), chosen)
        runs.append(
            {
                "number": number,
                "chosen": chosen,
                "is_archived": chosen.archived_at is not None,
                "count": len(variants),
                "size": comparison.times(original.size_bytes, chosen.size_bytes),
                **_lineage(request, chosen),
            }
        )
    mine = request.actor.tenant is not None and model.tenant_id == request.actor.tenant.pk
    may_shelve = mine and allowed(request.actor, "models.archive", model)
    archived, in_use = model.archived_at is not None, [run for run in runs if not run["is_archived"]]
    # with the model; a version archived by itself may have lost its files before
    gone = [run["chosen"].files_deleted_at for run in in_use if run["chosen"].files_deleted_at]
    context = {
        "model": model,
        "runs": in_use,
        "archived_runs": [run for run in runs if run["is_archived"]],
        "latest": in_use[0]["chosen"] if in_use else None,
        "endpoints": Endpoint.objects.visible_to(request.actor)
        .filter(current__version__model=model)
        .order_by("name"),
        "may_publish": mine and not archived and request.actor.may("endpoints.publish"),
        "may_archive": may_shelve and not archived,
        "may_restore": may_shelve and archived and not gone,
        "files_deleted_at": max(gone, default=None),
        "deleted_on": cleaning.deleted_on(model.archived_at),
        "grace_days": settings.ARCHIVE_GRACE_DAYS,
        "is_guest": not mine,
        **share_context(request, model, share_form),
    }
    return render(request, "jobs/models/detail.html", context, status=status)


def _lineage(request: Request, version: ModelVersion) -> dict[str, Any]:
    """Job and dataset behind a version: names for everybody, links for those who may open them."""
    actor = request.actor
    dataset = version.dataset_version.dataset
    return {
        "job": version.job,
        "sees_job": Job.objects.visible_to(actor).filter(pk=version.job_id).exists(),
        "dataset_version": version.dataset_version,
        "sees_dataset": Dataset.objects.visible_to(actor).filter(pk=dataset.pk).exists(),
    }


def _deltas(before: ModelVersion, after: ModelVersion) -> dict[str, comparison.Delta]:
    return {
        "size": comparison.times(before.size_bytes, after.size_bytes),
        "p50": comparison.times(before.latency_p50_ms, after.latency_p50_ms),
        "p95": comparison.times(before.latency_p95_ms, after.latency_p95_ms),
        "accuracy": comparison.points(before.accuracy, after.accuracy, passed=after.passed_gate),
    }


def _count_of_classes(manifest: dict[str, Any]) -> list[tuple[Any, int]]:
    """Among how many the model chooses; a number is not chosen."""
    titles = {Learns.CLASS: _("Classes"), Learns.RANKING: _("Items"), Learns.TEXT: _("Characters known")}
    known = {str(one): needs.learns for one, needs in NEEDS.items()}
    title = titles.get(known.get(str(manifest.get("recipe")), Learns.CLASS))
    return [(title, len(manifest.get("classes", [])))] if title else []


def _simplest_guess(manifest: dict[str, Any]) -> tuple[Any, str]:
    """What a model must beat, by the name of how it guesses."""
    named = (manifest.get("baseline") or {}).get("name", "commonest class")
    title = _("Guessing the commonest class")
    if named != "commonest class":
        title = _("Simplest guess: %(name)s") % {"name": said(named)}
    return title, f"{100 * (manifest.get('baseline_accuracy') or 0):.1f} %"


def _facts(version: ModelVersion) -> list[tuple[Any, Any]]:
    manifest, measured = version.manifest, version.report
    facts = [
        (_("Recipe"), recipe_label(manifest.get("recipe", ""))),
        *_count_of_classes(manifest),
        (_("Rows trained on"), f"{manifest.get('rows_trained', 0):,}"),
        (_("Held-out rows"), f"{measured.get('holdout_rows', 0):,}"),
        (_("Steps"), f"{manifest.get('steps', 0):,}"),
        _simplest_guess(manifest),
        *(
            (QUALITIES.get(name, name), f"{value:.4g}")
            for name, value in version.report.get("figures", {}).items()
        ),
    ]
    if privacy := manifest.get("privacy"):
        promised = f"ε = {privacy['epsilon']:.2f}, δ = {privacy['delta']:g}"
        facts.append((_("Differential privacy of the training rows"), promised))
    difference = measured.get("max_abs_difference")
    if difference is not None and version.variant != service.ORIGINAL:
        facts.append((_("Largest change of a probability"), f"{difference:.3g}"))
    return facts
