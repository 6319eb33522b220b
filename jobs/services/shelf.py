"""Models and their versions out of use, and back: hidden, not published any more, in the end without files."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from jobs.models import Endpoint, Model, ModelVersion, Revision
from jobs.specs_endpoints import archived
from jobs.states import EndpointStatus
from tenants import audit
from tenants.actor import Actor
from tenants.errors import Conflict
from tenants.permissions import require

# how an endpoint holds on to a revision, in the order in which it is told
POINTERS = ("current", "canary", "shadow", "previous")


def archive_model(actor: Actor, model: Model) -> None:
    """Take a model with all its versions out of lists and new endpoints; its files go after a grace.

    Refused while an endpoint that is not stopped holds a version of it. Twice is as good as once.
    """
    require(actor, "models.archive", model)
    with transaction.atomic():
        held = _let_go(Q(version__model=model), what=model.name, model=model)
        if held.archived_at is None:
            model.archived_at = timezone.now()
            Model.objects.filter(pk=model.pk).update(archived_at=model.archived_at)
            audit.record(actor, "model.archived", model)


def restore_model(actor: Actor, model: Model) -> None:
    """Bring an archived model back while its files are there; versions archived by themselves stay so."""
    require(actor, "models.archive", model)
    with transaction.atomic():
        held = lock_model(model.pk)
        if held.archived_at is None:
            return
        _refuse_without_files(held.versions.filter(archived_at=None), what=held.name)
        try:
            with transaction.atomic():
                Model.objects.filter(pk=held.pk).update(archived_at=None)
        except IntegrityError:
            text = _("“%(name)s” is the name of another model now. Archive that one first.")
            raise Conflict(text % {"name": held.name}) from None
        model.archived_at = None
        audit.record(actor, "model.restored", model)


def archive_version(actor: Actor, version: ModelVersion) -> None:
    """Take one version, all variants of its run, out of use; else like `archive_model`."""
    require(actor, "models.archive", version)
    with transaction.atomic():
        run = Q(version__model=version.model_id, version__number=version.number)
        _let_go(run, what=_run_name(version), model=version.model)
        now = timezone.now()
        if _variants(version).filter(archived_at=None).update(archived_at=now):
            version.archived_at = now
            audit.record(actor, "model.version_archived", version.model, version=version.number)


def restore_version(actor: Actor, version: ModelVersion) -> None:
    """Bring one archived version back with all variants of its run, while its files are there."""
    require(actor, "models.archive", version)
    with transaction.atomic():
        held = lock_model(version.model_id)
        if held.archived_at is not None:
            text = _("“%(name)s” is archived as a whole. Restore the model first.")
            raise Conflict(text % {"name": held.name})
        variants = _variants(version).exclude(archived_at=None)
        _refuse_without_files(variants, what=_run_name(version))
        if variants.update(archived_at=None):
            version.archived_at = None
            audit.record(actor, "model.version_restored", version.model, version=version.number)


def ensure_in_use(version: ModelVersion) -> None:
    """Refuse an archived version, and keep it from being archived until the transaction ends."""
    lock_model(version.model_id)
    # read again: the row at hand is older than the lock
    fresh = ModelVersion.objects.defer("interface", "manifest", "report").select_related("model")
    if fresh.get(pk=version.pk).shelved_at is not None:
        raise Conflict(archived(version))


def lock_model(pk: int) -> Model:
    """The model's row, held until the transaction ends: whoever archives, restores or publishes takes it."""
    return Model.objects.select_for_update(of=("self",), no_key=True).get(pk=pk)


def _let_go(revisions: Q, *, what: str, model: Model) -> Model:
    """Refuse while endpoints hold on to these revisions; stopped ones forget them. Returns the model, locked."""
    holding = Q()
    for pointer in POINTERS:
        holding |= Q(**{f"{pointer}__in": _of(revisions)})
    # endpoints before the model: the order in which a version is published
    there = Endpoint.objects.select_for_update(of=("self",)).filter(holding, tenant=model.tenant_id)
    idle = [one.pk for one in there.order_by("pk") if one.status == EndpointStatus.STOPPED]
    held = lock_model(model.pk)
    busy = Endpoint.objects.filter(holding, tenant=model.tenant_id).exclude(pk__in=idle)
    if found := list(busy.order_by("name")):
        raise Conflict(_still_needed(what, found, set(_of(revisions).values_list("pk", flat=True))))
    stopped = Endpoint.objects.filter(pk__in=idle)
    # `current` stays, so that the page tells what answered last; starting it is refused
    stopped.filter(previous__in=_of(revisions)).update(previous=None)
    stopped.filter(canary__in=_of(revisions)).update(canary=None, canary_share=0, canary_since=None)
    stopped.filter(shadow__in=_of(revisions)).update(shadow=None, shadow_share=0)
    return held


def _still_needed(what: str, endpoints: list[Endpoint], revisions: set[int]) -> str:
    words = {
        "current": _("%(endpoint)s answers with it"),
        "canary": _("%(endpoint)s tries it"),
        "shadow": _("%(endpoint)s shadows with it"),
        "previous": _("%(endpoint)s would go back to it"),
    }
    uses = [
        words[pointer] % {"endpoint": one.name}
        for one in endpoints
        for pointer in POINTERS
        if getattr(one, f"{pointer}_id") in revisions
    ]
    text = _("“%(what)s” is still needed: %(uses)s. Publish another version there, or stop it.")
    return text % {"what": what, "uses": ", ".join(uses)}


def _refuse_without_files(versions: QuerySet[ModelVersion], *, what: str) -> None:
    if versions.exclude(files_deleted_at=None).exists():
        text = _("The files of “%(what)s” are deleted, so it cannot come back. Train it again.")
        raise Conflict(text % {"what": what})


def _of(which: Q) -> QuerySet[Revision]:
    return Revision.objects.filter(which)


def _variants(version: ModelVersion) -> QuerySet[ModelVersion]:
    return ModelVersion.objects.filter(model=version.model_id, number=version.number)


def _run_name(version: ModelVersion) -> str:
    return f"{version.model.name} v{version.number}"
