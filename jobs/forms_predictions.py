"""The form of a batch prediction. It only gathers: what is right is decided by PredictionSpec."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from jobs import spec_labels
from jobs.forms_endpoints import offer_versions
from jobs.forms_jobs import MOST_OFFERED, newest_versions
from jobs.forms_spec import SpecForm
from jobs.models import DatasetVersion, ModelVersion
from jobs.spec_data import FITS, column_names, lookup
from jobs.specs_predictions import find_columns, takes_pictures
from tenants.actor import Actor
from trainer.contract import Recipe

SHOWN_INPUTS = 4  # of a model that takes no more, every input is shown; else only those no column fits
POINTERS = {
    "/model_version": "model_version",
    "/dataset": "dataset",
    "/keep": "keep",
    "/limits/max_time_s": "max_minutes",
    "/limits/max_spend": "max_spend",
    "/labels": "labels",
    "/name": "name",
}


class PredictionForm(SpecForm):
    """Which model, over which data, and which column is what."""

    model_version = forms.ChoiceField(label=_("Model version"))
    dataset = forms.CharField(label=_("Dataset"), widget=forms.Select)
    name = forms.CharField(
        label=_("Name"), required=False, max_length=120, help_text=_("Empty: the model and the dataset.")
    )
    keep = forms.MultipleChoiceField(
        label=_("Columns to copy"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("They stand beside each answer, such as an id. The row number always does."),
    )
    max_minutes = forms.FloatField(
        label=_("Time limit"), initial=60, help_text=_("The job is stopped there, whatever it does.")
    )
    max_spend = forms.DecimalField(
        label=_("Spend limit"), required=False, help_text=_("Empty: only the tenant's budget counts.")
    )
    labels = forms.CharField(
        label=_("Labels"), required=False, max_length=1200,
        help_text=_("Such as team=vision, project=churn. Costs are asked and budgets are counted by them."),
    )  # fmt: skip

    def __init__(self, actor: Actor, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in ("max_minutes", "max_spend"):
            self.fields[name].widget.attrs["step"] = "any"
        offer_versions(self.fields["model_version"], actor)
        self.predictor = self._predictor(actor)
        self.versions = self._versions(actor)
        self.version = self._version()
        self.fields["dataset"].widget.choices = [(one.public_id, _choice(one)) for one in self.versions]  # type: ignore[attr-defined]
        self.inputs: dict[str, str] = {}  # field -> input of the model
        if self.predictor is not None and self.version is not None:
            self._offer_columns(self.predictor, self.version)

    @property
    def column_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.inputs]

    def spec_data(self) -> dict[str, Any]:
        """What the fields say, as the JSON that the API takes. Call it on a valid form."""
        said = self.cleaned_data
        return {
            "name": said["name"],
            "model_version": said["model_version"],
            "dataset": said["dataset"],
            "columns": {one: said[field] for field, one in self.inputs.items() if said[field]},
            "keep": said["keep"],
            "limits": {
                "max_time_s": round(said["max_minutes"] * 60),
                "max_spend": None if said["max_spend"] is None else f"{said['max_spend']:f}",
            },
            "labels": dict(spec_labels.split(said["labels"])),
        }

    def _field_of(self, pointer: str) -> str | None:
        for start, field in POINTERS.items():
            if pointer.startswith(start):
                return field
        name = pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        return next((field for field, one in self.inputs.items() if one == name), None)

    def _predictor(self, actor: Actor) -> ModelVersion | None:
        known = [value for _model, group in self.fields["model_version"].choices for value, _text in group]  # type: ignore[attr-defined]
        chosen = self["model_version"].value()
        if not self.is_bound and chosen not in known and known:
            chosen = self.initial["model_version"] = known[0]
        if chosen not in known:
            return None
        rows = ModelVersion.objects.visible_to(actor).select_related("model", "job")
        return rows.filter(public_id=chosen).first()

    def _versions(self, actor: Actor) -> list[DatasetVersion]:
        """The newest that the model can read, and the chosen one."""
        if self.predictor is None:
            return []
        recipe = Recipe(self.predictor.model.recipe)
        found = newest_versions(actor, recipe)[:MOST_OFFERED]
        chosen = self["dataset"].value()
        if isinstance(chosen, str) and chosen not in {one.public_id for one in found} and "\0" not in chosen:
            beside = lookup(actor, chosen)
            if beside is not None and beside.format in FITS[recipe] and beside.dataset.archived_at is None:
                found.insert(0, beside)
        return found

    def _version(self) -> DatasetVersion | None:
        chosen = self["dataset"].value()
        named = next((one for one in self.versions if one.public_id == chosen), None)
        return named or (self.versions[0] if self.versions else None)

    def _offer_columns(self, predictor: ModelVersion, version: DatasetVersion) -> None:
        names = [(name, name) for name in column_names(version)]
        self.fields["keep"].choices = names  # type: ignore[attr-defined]
        if takes_pictures(predictor):
            return
        fitting = find_columns(predictor, version)
        for number, (one, column) in enumerate(fitting.items()):
            if column is not None and len(fitting) > SHOWN_INPUTS:
                continue
            field = f"column_{number}"
            self.inputs[field] = one
            empty = [] if column is not None else [("", _("Choose a column"))]
            self.fields[field] = forms.ChoiceField(
                label=one, required=False, choices=[*empty, *names], initial=column or ""
            )


def _choice(version: DatasetVersion) -> str:
    rows = _("%(rows)s rows") % {"rows": f"{version.row_count:,}"}
    return f"{version.dataset.name} v{version.number} · {rows} · {version.get_format_display()}"
