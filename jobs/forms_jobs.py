"""The form of a new job. It only gathers: what is right is decided by JobSpec, in the words the API uses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django import forms
from django.db.models import Exists, OuterRef, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from jobs import spec_labels
from jobs.forms_columns import RECIPES, ColumnFields
from jobs.forms_spec import SpecForm
from jobs.forms_training import TrainingFields, initial_training
from jobs.models import DatasetVersion
from jobs.spec_data import FITS, column_names, lookup
from jobs.states import JobStatus
from tenants.actor import Actor
from trainer.contract import (
    OPTIMIZERS,
    CompressionSpec,
    HyperParameters,
    Method,
    Precision,
    Recipe,
    usual,
)

MOST_OFFERED = 50  # datasets in the list; more are found by name
_HYPER, _COMPRESSION = HyperParameters(), CompressionSpec()
METHODS = [
    (Method.INT8, _("int8: smaller numbers, about a quarter of the size")),
    (Method.PRUNE, _("Pruning: the least important weights become zero")),
    (Method.STRUCTURED, _("Narrower layers: whole channels taken out, then taught by the original")),
    (Method.LOWRANK, _("Low rank: large matrices split into two thin ones")),
    (Method.DISTILL, _("Distillation: a small new network taught by the original")),
    (Method.VOCABULARY, _("Vocabulary: rows of a text table that say little taken out")),
    (Method.SHARE, _("Sharing: the same numbers do several jobs, taught by the original")),
    (Method.WEIGHTS8, _("8-bit weights: a quarter of the size, calculates as before")),
    (Method.WEIGHTS4, _("4-bit weights: a seventh of the size, calculates as before")),
]
# where a fault of the spec is shown
POINTERS = {
    "/columns/label": "label",
    "/columns/text": "text",
    "/columns/features": "features",
    "/limits/max_time_s": "max_minutes",
    "/limits/max_spend": "max_spend",
    "/compression/methods": "methods",
    "/labels": "labels",
    "/training/early_stopping/metric": "watched_metric",
    "/training/early_stopping": "patience",
}


class JobForm(ColumnFields, TrainingFields, SpecForm):
    name = forms.CharField(label=_("Name"), max_length=120)
    recipe = forms.ChoiceField(
        label=_("Recipe"), choices=[(one[0], one[1]) for one in RECIPES], widget=forms.RadioSelect
    )
    dataset = forms.CharField(label=_("Dataset"), widget=forms.Select)
    find = forms.CharField(
        label=_("Find a dataset"),
        required=False,
        max_length=80,
        widget=forms.TextInput(
            attrs={"type": "search", "autocomplete": "off", "placeholder": _("Part of its name")}
        ),
    )
    epochs = forms.IntegerField(
        label=_("Epochs"), initial=_HYPER.epochs, help_text=_("Times through the data.")
    )
    batch_size = forms.IntegerField(
        label=_("Batch size"),
        initial=_HYPER.batch_size,
        help_text=_("Rows a step, of all processes together."),
    )
    learning_rate = forms.FloatField(label=_("Learning rate"), initial=_HYPER.learning_rate)
    weight_decay = forms.FloatField(label=_("Weight decay"), initial=_HYPER.weight_decay)
    optimizer = forms.ChoiceField(
        label=_("Optimizer"), choices=[(one, one) for one in OPTIMIZERS], initial=_HYPER.optimizer
    )
    holdout = forms.FloatField(
        label=_("Held out"), initial=_HYPER.holdout, help_text=_("Share of rows never trained on.")
    )
    seed = forms.IntegerField(
        label=_("Seed"), initial=_HYPER.seed, help_text=_("The same seed, the same loss.")
    )
    processes = forms.IntegerField(label=_("Processes"), initial=1)
    gpus = forms.IntegerField(label=_("GPUs"), initial=0)
    precision = forms.ChoiceField(
        label=_("Precision"), choices=[(one, one) for one in Precision], initial="fp32"
    )
    max_minutes = forms.FloatField(
        label=_("Time limit"), initial=60, help_text=_("The job is stopped there, whatever it does.")
    )
    max_spend = forms.DecimalField(
        label=_("Spend limit"), required=False, help_text=_("Empty: only the tenant's budget counts.")
    )
    methods = forms.MultipleChoiceField(
        label=_("Methods"), required=False, choices=METHODS, widget=forms.CheckboxSelectMultiple,
        initial=[str(one) for one in _COMPRESSION.methods],
    )  # fmt: skip
    max_accuracy_drop = forms.FloatField(
        label=_("Accuracy that may be lost"),
        initial=_COMPRESSION.max_accuracy_drop,
        help_text=_("A share: 0.01 is one point. Variants that lose more are not chosen."),
    )
    sparsity = forms.FloatField(
        label=_("Sparsity"),
        initial=_COMPRESSION.sparsity,
        help_text=_("Share of weights that pruning sets to zero."),
    )
    model_name = forms.CharField(
        label=_("Model name"), required=False, max_length=120, help_text=_("Empty: the name of the job.")
    )
    publish_to = forms.CharField(
        label=_("Publish to endpoint"), required=False, max_length=40,
        help_text=_("An address such as digits. The chosen variant goes there when the job has succeeded."),
    )  # fmt: skip
    labels = forms.CharField(
        label=_("Labels"), required=False, max_length=1200,
        help_text=_("Such as team=vision, project=churn. Costs are asked and budgets are counted by them."),
    )  # fmt: skip

    def __init__(
        self,
        actor: Actor,
        *args: Any,
        extra_version: DatasetVersion | None = None,
        like: JobForm | None = None,
        **options: Any,
    ) -> None:
        """`like`: another form of the same request, whose datasets are taken over where it looked for the same."""
        super().__init__(*args, **options)
        anything = (
            "learning_rate", "weight_decay", "holdout", "max_accuracy_drop", "sparsity", "max_minutes",
            "max_spend", "clip_norm", "checkpoint_every_s",
        )  # fmt: skip
        for name in anything:
            self.fields[name].widget.attrs["step"] = "any"
        recipe = self["recipe"].value() or Recipe.IMAGE
        self.chosen_recipe = Recipe(recipe) if recipe in list(Recipe) else Recipe.IMAGE
        text = str(self["find"].value() or "").replace("\0", "")  # PostgreSQL takes no NUL
        self.found: list[DatasetVersion]
        self.has_more: bool
        self.looked_for = (self.chosen_recipe, text)
        if like is not None and like.looked_for == self.looked_for:
            self.found, self.has_more = like.found, like.has_more
        else:
            found = newest_versions(actor, self.chosen_recipe, text=text)
            self.found, self.has_more = found[:MOST_OFFERED], len(found) > MOST_OFFERED
        self.versions = self.found
        chosen = self["dataset"].value()
        known = {one.public_id for one in self.found}
        beside = extra_version or (
            None if chosen in known else chosen_version(actor, self.chosen_recipe, chosen)
        )
        if beside is not None and beside.public_id not in known:
            self.versions = [beside, *self.found]
        self.fields["dataset"].widget.choices = [(one.public_id, _choice(one)) for one in self.versions]
        for name, value in asdict(usual(self.chosen_recipe)).items():
            self.initial.setdefault(name, value)
        self.version = next((one for one in self.versions if one.public_id == chosen), None)
        if self.version is None and self.versions and not (self.is_bound and chosen):
            self.version = self.versions[0]
        self.offer_columns(self.version.profile.get("columns", []) if self.version else [])

    def clean_labels(self) -> str:
        text: str = self.cleaned_data["labels"]
        keys = [key for key, _value in spec_labels.split(text)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise forms.ValidationError(_("%(key)s is there twice.") % {"key": twice[0]})
        return text

    def spec_data(self) -> dict[str, Any]:
        """What the fields say, as the JSON that the API takes. Call it on a valid form."""
        said = self.cleaned_data
        return {
            "name": said["name"],
            "recipe": said["recipe"],
            "dataset": said["dataset"],
            "columns": self.columns_data(said),
            "hyperparameters": {
                name: said[name]
                for name in (
                    "epochs", "batch_size", "learning_rate", "weight_decay", "optimizer", "holdout", "seed",
                )
            },
            "training": self.training_data(),
            "resources": {
                name: said[name] for name in ("processes", "min_processes", "gpus", "precision")
            },
            "limits": {
                "max_time_s": round(said["max_minutes"] * 60),
                "max_spend": None if said["max_spend"] is None else f"{said['max_spend']:f}",
            },
            "compression": {name: said[name] for name in ("methods", "max_accuracy_drop", "sparsity")},
            "model_name": said["model_name"] or None,
            "publish_to": said["publish_to"] or None,
            "labels": dict(spec_labels.split(said["labels"])),
        }  # fmt: skip

    def _field_of(self, pointer: str) -> str | None:
        for start, field in POINTERS.items():
            if pointer.startswith(start):
                return field
        name = pointer.rsplit("/", 1)[-1]
        return name if name in self.fields else None


class JobFilter(forms.Form):
    """The list's search, status and label; all live in the address."""

    q = forms.CharField(required=False, label=_("Search"), max_length=120)
    status = forms.ChoiceField(
        required=False, label=_("Status"), choices=[("", _("All")), *JobStatus.choices]
    )
    label = forms.CharField(required=False, label=_("Label"), max_length=120)


def newest_versions(actor: Actor, recipe: Recipe, *, text: str = "") -> list[DatasetVersion]:
    """The newest version of datasets the recipe can learn from, newest first: one more than the form offers."""
    rows = _newest(actor, text).filter(format__in=FITS[recipe])
    # a profile may be large, and only that of the chosen one is read
    return list(
        rows.select_related("dataset").defer("profile").order_by("-created_at", "-pk")[: MOST_OFFERED + 1]
    )


def fitting_recipe(actor: Actor) -> Recipe | None:
    """The first recipe that can learn from one of the actor's datasets."""
    formats = set(_newest(actor).order_by().values_list("format", flat=True).distinct())
    return next((one[0] for one in RECIPES if formats & set(FITS[one[0]])), None)


def _newest(actor: Actor, text: str = "") -> QuerySet[DatasetVersion]:
    """The newest version of each dataset in use."""
    rows = DatasetVersion.objects.visible_to(actor).filter(dataset__archived_at=None)
    if text:
        rows = rows.filter(dataset__name__icontains=text)
    # one look into the index for each row: a list of all newest ones would be made anew for each where the
    # planner takes the table for empty, as it does before the first ANALYZE
    later = DatasetVersion.objects.filter(dataset=OuterRef("dataset"), number__gt=OuterRef("number"))
    return rows.filter(~Exists(later))


def chosen_version(actor: Actor, recipe: Recipe, public_id: object) -> DatasetVersion | None:
    """A version named by its id that is none of the newest few, if the recipe can learn from it."""
    if not isinstance(public_id, str) or "\0" in public_id:
        return None
    found = lookup(actor, public_id)
    fits = found is not None and found.format in FITS[recipe] and found.dataset.archived_at is None
    return found if fits else None


def take_usual(posted: QueryDict, recipe: Recipe) -> None:
    """Bring what is still at some recipe's usual value to the usual one of `recipe`; leave what was typed."""
    for name, value in asdict(usual(recipe)).items():
        untouched = {str(getattr(usual(other), name)) for other in Recipe}
        if posted.get(name) in untouched:
            posted[name] = str(value)


def initial_of(spec: dict[str, Any]) -> dict[str, Any]:
    """A stored spec as initial values of the form, for a clone."""
    columns, limits = spec.get("columns", {}), spec.get("limits", {})
    return {
        **{name: spec.get(name) for name in ("name", "recipe", "dataset", "model_name", "publish_to")},
        **columns,
        **spec.get("hyperparameters", {}),
        **initial_training(spec.get("training", {})),
        **spec.get("resources", {}),
        **spec.get("compression", {}),
        "labels": spec_labels.written(spec.get("labels") or {}),
        "max_minutes": limits.get("max_time_s", 3600) / 60,
        "max_spend": limits.get("max_spend"),
    }


def _choice(version: DatasetVersion) -> str:
    rows = _("%(rows)s rows") % {"rows": f"{version.row_count:,}"}
    return f"{version.dataset.name} v{version.number} · {rows} · {version.get_format_display()}"


__all__ = [
    "METHODS",
    "RECIPES",
    "JobFilter",
    "JobForm",
    "column_names",
    "fitting_recipe",
    "initial_of",
    "take_usual",
]
