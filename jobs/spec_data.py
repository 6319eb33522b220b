"""What a spec says of data: which version, which columns, and whether the recipe can learn from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from jobs.models import Dataset, DatasetVersion
from jobs.models.datasets import DatasetFormat
from jobs.spec_faults import Section
from tenants.actor import Actor
from trainer.contract import COLUMNS, NEEDS, Learns, Recipe

MIN_ROWS = 10
FITS = {recipe: tuple(map(DatasetFormat, needs.formats)) for recipe, needs in NEEDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column plays which part; images need none, their folder is the label."""

    label: str | None = None
    text: str | None = None
    features: tuple[str, ...] = ()  # empty: every column but the label
    topic: str | None = None
    answer: str | None = None
    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; parts that few recipes know are there when they are named."""
        rare = {role: getattr(self, role) for role in COLUMNS[2:] if getattr(self, role)}
        return {"label": self.label, "text": self.text, "features": list(self.features), **rare}


def find_version(actor: Actor, top: Section) -> DatasetVersion | None:
    """`dsv_...` is that version, `ds_...` the newest of it. Hidden and missing look the same."""
    raw = top.take("dataset")
    if not isinstance(raw, str) or not raw or "\0" in raw:
        top.fault(
            "dataset", "required", _("This is required: the id of a dataset (ds_…) or a version (dsv_…).")
        )
        return None
    version = lookup(actor, raw)
    if version is None:
        text = _("There is no dataset %(id)s, or you may not see it.")
        top.fault("dataset", "not_found", text % {"id": raw[:60]})
        return None
    if version.dataset.archived_at is not None:
        top.fault("dataset", "archived", _("This dataset is archived. Choose another one."))
        return None
    if version.row_count < MIN_ROWS:
        text = _("This version has %(rows)s usable rows; training needs at least %(least)s.")
        top.fault("dataset", "too_few_rows", text % {"rows": version.row_count, "least": MIN_ROWS})
    return version


def lookup(actor: Actor, public_id: str) -> DatasetVersion | None:
    """The version behind an id that the actor may see."""
    if public_id.startswith("ds_"):
        dataset = Dataset.objects.visible_to(actor).filter(public_id=public_id).first()
        return dataset.latest if dataset else None
    seen = DatasetVersion.objects.visible_to(actor).select_related("dataset")
    return seen.filter(public_id=public_id).first()


def column_names(version: DatasetVersion) -> list[str]:
    return [column["name"] for column in version.profile.get("columns", [])]


def read_columns(part: Section, recipe: Recipe | None, version: DatasetVersion | None) -> Columns:
    """The columns of the spec, each looked up in the profile."""
    # as they are: a column may be called anything, spaces included
    named = {role: part.text(role, most=500, required=False, tidy=False) for role in COLUMNS}
    features = _features(part)
    if recipe is None or version is None:
        return Columns()
    if version.format not in FITS[recipe]:
        wanted = " / ".join(str(one.label) for one in FITS[recipe])
        part.faults.add(
            "/recipe",
            "wrong_format",
            _("%(recipe)s learns from %(wanted)s; this dataset is %(format)s.")
            % {"recipe": str(recipe), "wanted": wanted, "format": version.get_format_display()},
        )
        return Columns()
    needs = NEEDS[recipe]
    taken = (*needs.columns, *needs.optional)
    for role, value in (*named.items(), ("features", features)):
        if value and role not in taken:
            part.fault(role, "not_used", _not_used(recipe, role))
    if recipe is Recipe.IMAGE:
        _two_classes(part, "/dataset", len(version.profile.get("classes", {})))
        return Columns()
    known = {column["name"]: column for column in version.profile.get("columns", [])}
    for role in taken:
        if role == "label":
            _check_label(part, named[role], known, version, needs.learns)
        elif role in COLUMNS and (role in needs.columns or named[role]):
            _check_part(part, role, named[role], known, needs.learns)
    _check_distinct(part, {role: named[role] for role in taken if role in COLUMNS and named[role]})
    if "features" not in taken:
        return replace(Columns(), **{role: named[role] or None for role in COLUMNS if role in taken})  # type: ignore[arg-type]
    for index, name in enumerate(features):
        if _check(part, f"features/{index}", name, known) and name == named["label"]:
            said = _("The label cannot be a feature: the answer would be in the question.")
            part.fault(f"features/{index}", "is_label", said)
    if not [name for name in known if name != named["label"]]:
        part.fault("features", "none", _("There is no column besides the label to learn from."))
    return Columns(label=named["label"], features=features)


def _not_used(recipe: Recipe, role: str) -> str:
    if recipe is Recipe.IMAGE:
        return _("Images need no columns: the folder is the label.")
    if recipe is Recipe.TEXT and role == "features":
        return _("The text recipe learns from one text column only.")
    if role == "text":
        return _("The tabular recipe has no text column; name it among the features.")
    return _("%(recipe)s does not use this part. Leave it out.") % {"recipe": str(recipe)}


def _check_part(part: Section, role: str, name: str, known: dict[str, Any], learns: Learns) -> None:
    """A column that may not be empty anywhere; ratings and times are numbers."""
    column = _check(part, role, name, known)
    if column is None:
        return
    if (missing := column.get("missing")) and not (role == "text" and learns is Learns.RANKING):
        text = _("Column %(name)s is empty in %(n)s rows. Fill it in or remove them, then upload again.")
        part.fault(role, "missing_values", text % {"name": name, "n": missing})
    if role in ("rating", "time") and column.get("type") != "number":
        part.fault(role, "not_a_number", _("Column %(name)s holds no numbers.") % {"name": name[:80]})
    if role in ("topic", "answer", "item") and column.get("distinct") == 1:
        _two_classes(part, f"{part.pointer}/{role}", 1)


def _check_distinct(part: Section, named: dict[str, str]) -> None:
    """One column, one part: a label that is also the text would be the answer in the question."""
    owner: dict[str, str] = {}
    for role, name in named.items():
        if name not in owner:
            owner[name] = role
            continue
        if {role, owner[name]} == {"text", "label"}:
            said = _("The label cannot be the text: the answer would be in the question.")
            part.fault("text", "is_label", said)
        else:
            said = _("Column %(name)s plays another part already.") % {"name": name[:80]}
            part.fault(role, "taken", said)


def _features(part: Section) -> tuple[str, ...]:
    raw = part.take("features")
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple) or not all(isinstance(name, str) for name in raw):
        part.fault("features", "type", _("Features are a list of column names; [] for all but the label."))
        return ()
    return tuple(dict.fromkeys(raw))


def _check_label(
    part: Section, label: str, known: dict[str, Any], version: DatasetVersion, learns: Learns
) -> None:
    column = _check(part, "label", label, known)
    if column is None:
        return
    if missing := column.get("missing"):
        text = _("Column %(name)s is empty in %(n)s rows. Fill it in or remove them, then upload again.")
        part.fault("label", "missing_values", text % {"name": label, "n": missing})
    distinct = column.get("distinct")
    if learns is Learns.NUMBER:
        _check_number(part, label, column)
    elif distinct is not None:
        _two_classes(part, f"{part.pointer}/label", distinct)
        if distinct > max(2, version.row_count // 2):
            text = _("Column %(name)s has %(n)s different values in %(rows)s rows: too many to be classes.")
            values = {"name": label, "n": distinct, "rows": version.row_count}
            part.fault("label", "too_many_classes", text % values)


def _check_number(part: Section, label: str, column: dict[str, Any]) -> None:
    if column.get("type") != "number":
        text = _(
            "Column %(name)s does not hold numbers all through: mend it, or choose a recipe for classes."
        )
        part.fault("label", "not_a_number", text % {"name": label[:80]})
    elif column.get("distinct") == 1:
        text = _("Column %(name)s is the same in every row: there is nothing to predict.")
        part.fault("label", "constant", text % {"name": label[:80]})


def _check(part: Section, field: str, name: str, known: dict[str, Any]) -> dict[str, Any] | None:
    columns = ", ".join(known)
    if not name:
        text = _("Name a column. There are: %(columns)s.")
        part.fault(field, "required", text % {"columns": columns})
        return None
    if name not in known:
        text = _("There is no column %(name)s. There are: %(columns)s.")
        part.fault(field, "unknown_column", text % {"name": name[:80], "columns": columns})
        return None
    column: dict[str, Any] = known[name]
    return column


def _two_classes(part: Section, pointer: str, classes: int) -> None:
    if classes < 2:
        text = _("There is %(n)s class; a classifier needs at least two to tell apart.")
        part.faults.add(pointer, "one_class", text % {"n": classes})
