"""Pages of datasets."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, F, Max, Prefetch, QuerySet
from django.db.models.fields.json import KT
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from jobs.forms_datasets import DatasetForm, ListFilter, ShareForm, VersionForm
from jobs.hints import hints
from jobs.models import Dataset, DatasetVersion, Job, Model
from jobs.models.datasets import DatasetFormat
from jobs.services import cleaning
from jobs.services import datasets as service
from jobs.uploads import UploadRequest, accepts_upload
from jobs.views.sharing import share_context, share_with, unshare_from
from jobs.views.shelf import shelved
from tenants.errors import Refused
from tenants.forms import add_faults
from tenants.http import Request
from tenants.permissions import allowed, require
from tenants.views.common import needs_something_to_see, needs_tenant

LINEAGE = 8
CLASS_BARS = 50
UNEVEN = 5  # times as many images in the largest class as in the smallest are worth a word
EXAMPLES = {
    "example_csv": "text,stars,label\nWorks as described,5,good\nBroke after a week,1,bad",
    "example_jsonl": '{"text": "It works", "label": "good"}\n{"text": "It broke", "label": "bad"}',
    "example_zip": "photos.zip\n  cat/1.png\n  cat/2.jpg\n  dog/1.png",
}


@needs_something_to_see(Dataset)
def dataset_list(request: Request) -> HttpResponse:
    seen = Dataset.objects.visible_to(request.actor)
    if not seen.exists():
        require(request.actor, "datasets.view")
    form = ListFilter(request.GET or None)
    chosen = form.cleaned_data if form.is_bound and form.is_valid() else {}
    archived = chosen.get("show") == "archived"
    rows = seen.filter(archived_at__isnull=not archived)
    if text := chosen.get("q"):
        rows = rows.filter(name__icontains=text)
    page = Paginator(_listed(rows), 25).get_page(request.GET.get("page"))
    for dataset in page:
        latest = dataset.all_versions[0]  # type: ignore[attr-defined]
        latest.class_count = len(json.loads(latest.classes or "{}"))
    context = {
        "form": form,
        "page_obj": page,
        "query": "".join(f"{urlencode({name: value})}&" for name, value in chosen.items() if value),
        "filtered": bool(chosen.get("q")) or archived,
        "has_archived": archived or seen.exclude(archived_at=None).exists(),
        "may_upload": request.actor.may("datasets.upload"),
        "snippet": _snippet(request),
    }
    return render(request, "jobs/datasets/list.html", context)


@accepts_upload
@needs_tenant
def dataset_new(request: UploadRequest) -> HttpResponse:
    require(request.actor, "datasets.upload")
    if request.method != "POST":
        return _new_page(request, DatasetForm())
    form = _received(DatasetForm, request)
    if form.is_valid():
        try:
            version = service.create_dataset(request.actor, **form.cleaned_data)
        except Refused as refusal:
            add_faults(form, refusal)
            return _new_page(request, form, status=refusal.status)
        messages.success(request, _kept(version))
        return redirect(version.dataset)
    return _new_page(request, form, status=_status(request))


@require_GET
def dataset_detail(request: Request, public_id: str) -> HttpResponse:
    dataset = _dataset(request, public_id)
    return _detail_page(request, dataset, VersionForm())


@accepts_upload
@require_POST
def dataset_upload(request: UploadRequest, public_id: str) -> HttpResponse:
    dataset = _dataset(request, public_id)
    require(request.actor, "datasets.upload", dataset)
    form = _received(VersionForm, request)
    if form.is_valid():
        try:
            version = service.add_version(request.actor, dataset, file=form.cleaned_data["file"])
        except Refused as refusal:
            add_faults(form, refusal)
            return _detail_page(request, dataset, form, status=refusal.status)
        messages.success(request, _kept(version))
        return redirect(dataset)
    return _detail_page(request, dataset, form, status=_status(request))


@require_POST
def dataset_archive(request: Request, public_id: str) -> HttpResponse:
    dataset = _dataset(request, public_id)
    service.archive_dataset(request.actor, dataset)
    messages.success(request, _("“%(name)s” is archived.") % {"name": dataset.name})
    return redirect("jobs:dataset_list")


@require_POST
def dataset_restore(request: Request, public_id: str) -> HttpResponse:
    dataset = _dataset(request, public_id)
    return shelved(
        request, dataset, lambda: service.restore_dataset(request.actor, dataset),
        done=_("“%(name)s” is back.") % {"name": dataset.name},
    )  # fmt: skip


@require_POST
def dataset_share(request: Request, public_id: str) -> HttpResponse:
    dataset = _dataset(request, public_id)
    form = share_with(request, dataset)
    if form is None:
        return redirect(dataset)
    return _detail_page(request, dataset, VersionForm(), share_form=form, status=422)


@require_POST
def dataset_unshare(request: Request, public_id: str) -> HttpResponse:
    dataset = _dataset(request, public_id)
    unshare_from(request, dataset)
    return redirect(dataset)


@require_GET
def dataset_thumbnail(request: Request, public_id: str, version_id: str, number: int) -> HttpResponse:
    """One preview image: a small PNG of our own making, which nothing may take for anything else."""
    versions = DatasetVersion.objects.visible_to(request.actor).select_related("tenant")
    version = get_object_or_404(versions, public_id=version_id, dataset__public_id=public_id)
    response = HttpResponse(service.thumbnail(version, number), content_type="image/png")
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["Content-Disposition"] = "inline"
    response["Cache-Control"] = "private, max-age=86400, immutable"  # a version never changes
    return response


def _dataset(request: Request, public_id: str) -> Dataset:
    rows = Dataset.objects.visible_to(request.actor).select_related("tenant", "created_by")
    return get_object_or_404(rows, public_id=public_id)


def _listed(rows: QuerySet[Dataset]) -> QuerySet[Dataset]:
    versions = DatasetVersion.objects.annotate(classes=KT("profile__classes")).defer("profile")
    return (
        rows.annotate(newest=Max("versions__created_at"), job_count=Count("versions__jobs", distinct=True))
        .prefetch_related(Prefetch("versions", queryset=versions.order_by("-number"), to_attr="all_versions"))
        .order_by(F("newest").desc(nulls_last=True), "-pk")
    )


def _received(kind: type[DatasetForm] | type[VersionForm], request: UploadRequest) -> Any:
    """The form of what came; where the body was refused, an empty one that says why."""
    refusal = request.upload_refusal
    if refusal is None:
        return kind(request.POST, request.FILES)
    form = kind({})
    form.full_clean()
    form.errors.clear()
    add_faults(form, refusal)
    return form


def _status(request: UploadRequest) -> int:
    return request.upload_refusal.status if request.upload_refusal else 422


def _kept(version: DatasetVersion) -> str:
    words = {"name": version.dataset.name, "number": version.number, "rows": f"{version.row_count:,}"}
    text = _("“%(name)s” version %(number)s is kept: %(rows)s rows.") % words
    if bad := version.profile["problem_count"]:
        text += " " + _("%(bad)s rows could not be used and are named below.") % {"bad": f"{bad:,}"}
    return text


def _new_page(request: Request, form: DatasetForm, status: int = 200) -> HttpResponse:
    context = {"form": form, "snippet": _snippet(request), **EXAMPLES}
    return render(request, "jobs/datasets/new.html", context, status=status)


def _snippet(request: Request) -> str:
    address = request.build_absolute_uri(reverse("api:dataset-list"))
    lines = (
        f"curl -s {address}",
        '-H "Authorization: Bearer $TAUON_TOKEN"',
        "-F name=reviews -F file=@reviews.csv",
    )
    return " \\\n  ".join(lines)


def _detail_page(
    request: Request,
    dataset: Dataset,
    form: VersionForm,
    *,
    share_form: ShareForm | None = None,
    status: int = 200,
) -> HttpResponse:
    actor = request.actor
    versions = list(dataset.versions.defer("profile").select_related("created_by").order_by("-number"))
    wanted = request.GET.get("version", "")
    number = int(wanted) if wanted.isdecimal() and len(wanted) < 9 else versions[0].number
    version = get_object_or_404(dataset.versions.select_related("created_by", "dataset"), number=number)
    jobs = Job.objects.visible_to(actor).filter(dataset_version__dataset=dataset)
    models = Model.objects.visible_to(actor).filter(versions__dataset_version__dataset=dataset).distinct()
    mine = actor.tenant is not None and dataset.tenant_id == actor.tenant.pk
    may_shelve = mine and allowed(actor, "datasets.archive", dataset)
    files_are_gone = any(one.files_deleted_at for one in versions)
    context = {
        "dataset": dataset,
        "versions": versions,
        "version": version,
        "facts": _facts(version),
        "form": form,
        "jobs": jobs.select_related("dataset_version").order_by("-created_at")[:LINEAGE],
        "job_count": jobs.count(),
        "models": models.order_by("-created_at")[:LINEAGE],
        "may_upload": mine and dataset.archived_at is None and allowed(actor, "datasets.upload", dataset),
        "may_archive": may_shelve and dataset.archived_at is None,
        "may_restore": may_shelve and dataset.archived_at is not None and not files_are_gone,
        "may_train": mine and dataset.archived_at is None and actor.may("jobs.submit"),
        "is_guest": not mine,
        "deleted_on": cleaning.deleted_on(dataset.archived_at),
        "grace_days": settings.ARCHIVE_GRACE_DAYS,
        **_shown(version),
        **share_context(request, dataset, share_form),
    }
    return render(request, "jobs/datasets/detail.html", context, status=status)


def _shown(version: DatasetVersion) -> dict[str, Any]:
    """The parts of the profile as a page wants them."""
    profile = version.profile
    names = [column["name"] for column in profile["columns"]]
    counts = sorted(profile.get("classes", {}).items(), key=lambda one: (-one[1], one[0]))
    if version.format == DatasetFormat.IMAGES:
        preview: list[Any] = list(enumerate(profile["preview"]))
    else:
        preview = [[row.get(name, "") for name in names] for row in profile["preview"]]
    return {
        "is_images": version.format == DatasetFormat.IMAGES,
        "columns": profile["columns"],
        "names": names,
        "preview": preview,
        "class_counts": counts[:CLASS_BARS],
        "class_count": len(counts),
        "most": counts[0][1] if counts else 0,
        "uneven": bool(counts) and counts[0][1] > UNEVEN * counts[-1][1],
        "problems": profile["problems"],
        "problem_count": profile["problem_count"],
        "hints": hints(profile),
    }


def _facts(version: DatasetVersion) -> list[tuple[Any, Any]]:
    profile = version.profile
    facts: list[tuple[Any, Any]] = [
        (_("File"), version.file_name),
        (_("Format"), version.get_format_display()),
    ]
    if image := profile.get("image"):
        size = f"{image['width']} × {image['height']}"
        facts.append(
            (_("Image size"), size if image.get("sizes", 1) == 1 else _("mostly %(size)s") % {"size": size})
        )
        facts.append((_("Colour"), _("grey") if image["channels"] == 1 else _("colour")))
    source = profile.get("source", {})
    if source.get("encoding") == "gb18030":
        facts.append((_("Read as"), "GB 18030"))
    if source.get("delimiter") in (";", "\t"):
        facts.append((_("Cells end with"), _("semicolon") if source["delimiter"] == ";" else _("tab")))
    if profile.get("ignored"):
        facts.append(
            (_("Left aside"), _("%(count)s files that are no images") % {"count": profile["ignored"]})
        )
    facts.append((_("Uploaded by"), version.created_by.email if version.created_by else "–"))
    return facts
