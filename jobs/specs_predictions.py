"""PredictionSpec: what a batch prediction may ask for. One validation for the form and the API.

Neither data nor model is opened here: the version's interface knows what the model takes, and the profile of the
dataset version knows which columns there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from jobs.models import DatasetVersion, ModelVersion
from jobs.models.datasets import DatasetFormat
from jobs.spec_data import column_names, lookup
from jobs.spec_faults import Faults, Section, shown_key
from jobs.spec_labels import read_labels
from jobs.specs import Limits, read_limits
from tenants.actor import Actor
from tenants.errors import Invalid
from tenants.permissions import allowed
from trainer.contract import COLUMNS, Recipe

MOST_KEPT = 50
# what a model takes but can do without; of the tabular recipes, empty cells are enough
OPTIONAL = {Recipe.RECOMMEND: frozenset({"liked"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionSpec:
    """A batch prediction as accepted: everything resolved, nothing left to guess."""

    name: str
    model_version: str  # public id
    dataset: str  # public id of the version
    columns: dict[str, str]  # input of the model -> column of the dataset; {} for pictures
    keep: tuple[str, ...]  # columns that are copied beside the answers
    limits: Limits
    labels: dict[str, str]
    predictor: ModelVersion = field(repr=False, compare=False)
    version: DatasetVersion = field(repr=False, compare=False)

    @classmethod
    def parse(cls, actor: Actor, data: Any) -> PredictionSpec:
        """Read a spec, or raise Invalid with a pointer and a sentence for everything wrong with it."""
        if not isinstance(data, Mapping):
            raise Invalid.at("", "type", _("A batch prediction is a JSON object."))
        faults = Faults()
        top = Section(data, "", faults)
        predictor, version = _find_predictor(actor, top), _find_data(actor, top)
        limits = top.section("limits")
        columns = top.section("columns")
        values: dict[str, Any] = {
            "name": top.text("name", most=120, required=False),
            "limits": read_limits(limits),
            "labels": read_labels(top),
            "columns": {},
            "keep": _keep(actor, top, version),
        }
        if predictor is not None and version is not None:
            values["columns"] = _columns(columns, predictor, version)
            values["name"] = values["name"] or f"{predictor.model.name} · {version.dataset.name}"[:120]
        for section in (limits, top):
            section.refuse_unknown()
        faults.raise_if_any()
        assert predictor is not None and version is not None
        return cls(
            predictor=predictor,
            version=version,
            model_version=predictor.public_id,
            dataset=version.public_id,
            **values,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `parse` reads it back as the same spec."""
        spend = self.limits.max_spend
        return {
            "name": self.name,
            "model_version": self.model_version,
            "dataset": self.dataset,
            "columns": dict(self.columns),
            "keep": list(self.keep),
            "limits": {
                "max_time_s": self.limits.max_time_s,
                "max_spend": None if spend is None else f"{spend:f}",
            },
            "labels": dict(self.labels),
        }

    @property
    def rows(self) -> int:
        """Rows of the upload, those that could not be read among them."""
        return rows_of(self.version)


def rows_of(version: DatasetVersion) -> int:
    return int(version.row_count) + int(version.profile.get("problem_count", 0))


def takes_pictures(predictor: ModelVersion) -> bool:
    """Whether the model is asked with image files."""
    inputs = predictor.interface.get("inputs", [])
    return len(inputs) == 1 and inputs[0]["datatype"] != "BYTES" and len(inputs[0]["shape"]) == 4


def find_columns(predictor: ModelVersion, version: DatasetVersion) -> dict[str, str | None]:
    """For each input of the model the column that fits by itself, or None: somebody has to say which."""
    if takes_pictures(predictor):
        return {}
    known = set(column_names(version))
    trained = predictor.job.spec.get("columns", {})
    found: dict[str, str | None] = {}
    for one in predictor.interface.get("inputs", []):
        name = one["name"]
        played = trained.get(name) if name in COLUMNS else None  # `text` was learned from this column
        found[name] = next((column for column in (played, name) if column in known), None)
    return found


def _find_predictor(actor: Actor, top: Section) -> ModelVersion | None:
    raw = top.take("model_version")
    if not isinstance(raw, str) or not raw or "\0" in raw:
        top.fault("model_version", "required", _("This is required: the id of a model version (ver_…)."))
        return None
    seen = ModelVersion.objects.visible_to(actor).select_related("model", "job", "tenant")
    found = seen.filter(public_id=raw).first()
    if found is None:
        text = _("There is no model version %(id)s, or you may not see it.")
        top.fault("model_version", "not_found", text % {"id": raw[:60]})
        return None
    if not allowed(actor, "models.download", found):
        # whoever may ask it anything as often as they like has the model
        text = _("You may see this model but not use it. Ask for the right to download its files.")
        top.fault("model_version", "forbidden", text)
        return None
    if found.shelved_at is not None:
        text = _("%(version)s is archived. Restore it, or choose another version.")
        top.fault("model_version", "archived", text % {"version": found})
        return None
    if not found.interface.get("inputs") or not found.artifacts.exists():
        top.fault("model_version", "no_files", _("The files of this version are gone. Choose another one."))
        return None
    return found


def _find_data(actor: Actor, top: Section) -> DatasetVersion | None:
    raw = top.take("dataset")
    if not isinstance(raw, str) or not raw or "\0" in raw:
        text = _("This is required: the id of a dataset (ds_…) or a version (dsv_…).")
        top.fault("dataset", "required", text)
        return None
    version = lookup(actor, raw)
    if version is None:
        text = _("There is no dataset %(id)s, or you may not see it.")
        top.fault("dataset", "not_found", text % {"id": raw[:60]})
        return None
    if version.dataset.archived_at is not None:
        top.fault("dataset", "archived", _("This dataset is archived. Choose another one."))
        return None
    return version


def _columns(part: Section, predictor: ModelVersion, version: DatasetVersion) -> dict[str, str]:
    """The column of each input: as said, else the one that fits by itself."""
    pictures = takes_pictures(predictor)
    if pictures != (version.format == DatasetFormat.IMAGES):
        text = (
            _("This model looks at images; this dataset is a table.")
            if pictures
            else _("This model reads tables; this dataset holds images.")
        )
        part.faults.add("/dataset", "wrong_format", text)
        return {}
    known = column_names(version)
    listed = ", ".join(known)[:400]
    optional = OPTIONAL.get(Recipe(predictor.model.recipe), frozenset())
    chosen: dict[str, str] = {}
    for name, fitting in find_columns(predictor, version).items():
        said = part.text(name, most=500, required=False, tidy=False)
        if said and said not in known:
            text = _("There is no column %(name)s. There are: %(columns)s.")
            part.fault(shown_key(name), "unknown_column", text % {"name": said[:80], "columns": listed})
        elif said or fitting:
            chosen[name] = said or fitting or ""
        elif name not in optional:
            text = _(
                "The model needs %(name)s, and no column is called so. Say which one it is. There are: %(columns)s."
            )
            part.fault(shown_key(name), "missing_column", text % {"name": name[:80], "columns": listed})
    part.refuse_unknown()
    return chosen


def _keep(actor: Actor, top: Section, version: DatasetVersion | None) -> tuple[str, ...]:
    raw = top.take("keep")
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple) or not all(isinstance(name, str) for name in raw):
        top.fault("keep", "type", _("This is a list of column names; [] for none."))
        return ()
    if len(raw) > MOST_KEPT:
        top.fault("keep", "too_many", _("At most %(most)s columns.") % {"most": MOST_KEPT})
        return ()
    if raw and version is not None and version.tenant_id != actor.the_tenant.pk:
        # to see a dataset is not to have it: the answers would hand out its rows
        text = _("This dataset belongs to another tenant: its columns cannot be copied. Leave this empty.")
        top.fault("keep", "forbidden", text)
        return ()
    known = column_names(version) if version is not None else list(raw)
    for index, name in enumerate(raw):
        if name not in known:
            text = _("There is no column %(name)s. There are: %(columns)s.")
            words = {"name": name[:80], "columns": ", ".join(known)[:400] or "–"}
            top.faults.add(f"/keep/{index}", "unknown_column", text % words)
    return tuple(dict.fromkeys(raw))
