"""JobSpec: what a job may ask for. One validation for the form, the API and the clone button.

The data is never read here: the profile of the dataset version knows columns, classes and missing values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from django.utils.text import slugify
from django.utils.translation import gettext as _

from jobs.compute import backend
from jobs.models import DatasetVersion
from jobs.spec_data import MIN_ROWS, Columns, find_version, read_columns
from jobs.spec_faults import Faults, Section
from jobs.spec_labels import read_labels
from jobs.spec_training import check_privacy, read_min_processes, read_training
from tenants import quotas
from tenants.actor import Actor
from tenants.errors import Invalid, QuotaExceeded
from trainer.contract import (
    OPTIMIZERS,
    CompressionSpec,
    HyperParameters,
    Method,
    Precision,
    Recipe,
    Resources,
    TrainingSpec,
)
from trainer.contract import usual as usual_of

__all__ = ["MIN_ROWS", "Columns", "JobSpec", "Limits"]

MAX_TIME_S = 7 * 24 * 3600
MAX_EPOCHS = 10_000
MAX_BATCH = 65_536
MAX_SPEND = Decimal(10) ** 9
_PARTS = ("columns", "hyperparameters", "training", "resources", "limits", "compression")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where the platform stops a job. `max_spend` None: only the tenant's budget."""

    max_time_s: int = 3600
    max_spend: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as accepted: everything resolved, nothing left to guess."""

    name: str
    recipe: Recipe
    dataset: str  # public id of the version
    columns: Columns
    hyperparameters: HyperParameters
    training: TrainingSpec
    resources: Resources
    limits: Limits
    compression: CompressionSpec
    model_name: str | None
    publish_to: str | None
    labels: Mapping[str, str]
    version: DatasetVersion = field(repr=False, compare=False)

    @classmethod
    def parse(cls, actor: Actor, data: Any) -> JobSpec:
        """Read a spec, or raise Invalid with a pointer and a sentence for everything wrong with it."""
        if not isinstance(data, Mapping):
            raise Invalid.at("", "type", _("A job spec is a JSON object."))
        faults = Faults()
        top = Section(data, "", faults)
        recipe = top.choice("recipe", Recipe)
        version = find_version(actor, top)
        parts = {name: top.section(name) for name in _PARTS}
        training, early = read_training(parts["training"])
        values: dict[str, Any] = {
            "name": top.text("name", most=120),
            "columns": read_columns(parts["columns"], recipe, version),
            "hyperparameters": _hyperparameters(parts["hyperparameters"], version, recipe),
            "training": training,
            "resources": _resources(parts["resources"], actor),
            "limits": read_limits(parts["limits"]),
            "compression": _compression(parts["compression"]),
            "model_name": top.text("model_name", most=120, required=False) or None,
            "publish_to": _publish_to(top),
            "labels": read_labels(top),
        }
        rows = version.row_count if version is not None else 0
        check_privacy(parts["training"], training, recipe, values["resources"].processes, rows)
        for section in (*parts.values(), early, top):
            section.refuse_unknown()
        faults.raise_if_any()
        assert recipe is not None and version is not None
        return cls(recipe=recipe, version=version, dataset=version.public_id, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `parse` reads it back as the same spec."""
        spend = self.limits.max_spend
        return {
            "name": self.name,
            "recipe": str(self.recipe),
            "dataset": self.dataset,
            "columns": self.columns.to_dict(),
            "hyperparameters": asdict(self.hyperparameters),
            "training": asdict(self.training),
            "resources": {
                **{name: one for name, one in asdict(self.resources).items() if name != "nodes"},
                "precision": str(self.resources.precision),
            },
            "limits": {
                "max_time_s": self.limits.max_time_s, "max_spend": None if spend is None else f"{spend:f}",
            },
            "compression": {
                **asdict(self.compression), "methods": [str(one) for one in self.compression.methods],
            },
            "model_name": self.model_name,
            "publish_to": self.publish_to,
            "labels": dict(self.labels),
        }  # fmt: skip


def _hyperparameters(part: Section, version: DatasetVersion | None, recipe: Recipe | None) -> HyperParameters:
    usual = usual_of(recipe) if recipe else HyperParameters()
    holdout = part.number("holdout", usual.holdout)
    if not 0 < holdout < 1:
        part.fault("holdout", "range", _("The held-out share lies between 0 and 1, such as 0.2."))
    elif version is not None and version.row_count >= MIN_ROWS and round(version.row_count * holdout) < 1:
        part.fault(
            "holdout", "range", _("Of %(rows)s rows this holds out none.") % {"rows": version.row_count}
        )
    rate = part.number("learning_rate", usual.learning_rate)
    if rate <= 0:
        part.fault("learning_rate", "range", _("The learning rate is above 0, such as 0.001."))
    decay = part.number("weight_decay", usual.weight_decay)
    if decay < 0:
        part.fault("weight_decay", "range", _("Weight decay is 0 or more."))
    return HyperParameters(
        epochs=part.whole("epochs", usual.epochs, least=1, most=MAX_EPOCHS),
        batch_size=part.whole("batch_size", usual.batch_size, least=1, most=MAX_BATCH),
        learning_rate=rate,
        weight_decay=decay,
        optimizer=part.one_of("optimizer", OPTIMIZERS, usual.optimizer),
        holdout=holdout,
        seed=part.whole("seed", usual.seed, least=0, most=2**32 - 1),
    )


def _resources(part: Section, actor: Actor) -> Resources:
    there = backend().capacity()
    gpus = part.whole("gpus", 0, least=0)
    processes = part.whole("processes", max(1, gpus), least=1)
    fewest = read_min_processes(part, processes)
    precision = part.choice("precision", Precision, Precision.FP32) or Precision.FP32
    if gpus > there.gpus:
        part.fault(
            "gpus",
            "not_there",
            _("This asks for %(gpus)s GPUs; this installation has %(there)s GPUs.")
            % {"gpus": gpus, "there": there.gpus},
        )
    elif gpus and gpus != processes:
        part.fault(
            "gpus",
            "mismatch",
            _("Each process trains on one GPU: ask for %(n)s GPUs for %(n)s processes, or for none.")
            % {"n": processes},
        )
    # where processes only follow from too many GPUs, the GPUs are the one fault
    if processes > there.processes and ("processes" in part.raw or gpus <= there.gpus):
        part.fault(
            "processes",
            "not_there",
            _("This asks for %(n)s processes; this installation runs at most %(there)s at once.")
            % {"n": processes, "there": there.processes},
        )
    if precision is Precision.FP16 and not gpus:
        part.fault("precision", "unsupported", _("fp16 needs a GPU. Choose fp32 or bf16 on the CPU."))
    if actor.tenant is not None:
        for what, wanted in (("processes", processes), ("gpus", gpus)):
            try:
                # what is in use frees itself and the job waits; what is above the quota never fits
                quotas.ensure_within(actor.tenant, what=what, used=0, wanted=wanted)  # type: ignore[arg-type]
            except QuotaExceeded as refusal:
                part.fault(what, refusal.code, refusal.detail)
    return Resources(processes=processes, min_processes=fewest, gpus=gpus, precision=precision)


def read_limits(part: Section) -> Limits:
    """The section `limits` of a spec."""
    usual = Limits()
    max_time_s = part.whole("max_time_s", usual.max_time_s, least=10, most=MAX_TIME_S)
    return Limits(max_time_s=max_time_s, max_spend=_max_spend(part))


def _max_spend(part: Section) -> Decimal | None:
    raw = part.take("max_spend")
    if raw is None or raw == "":
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float | Decimal):
        part.fault("max_spend", "type", _('The spend limit is a decimal such as "5.00", or null for none.'))
        return None
    try:
        amount = Decimal(str(raw))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        part.fault("max_spend", "type", _('The spend limit is a decimal such as "5.00", or null for none.'))
        return None
    exponent = amount.as_tuple().exponent
    if amount <= 0:
        part.fault("max_spend", "range", _("The spend limit is above 0. Leave it out for no limit."))
    elif amount > MAX_SPEND or (isinstance(exponent, int) and exponent < -4):
        part.fault("max_spend", "range", _("The spend limit has at most 9 digits and 4 decimals."))
    else:
        return amount
    return None


def _compression(part: Section) -> CompressionSpec:
    usual = CompressionSpec()
    raw = part.take("methods", [str(one) for one in usual.methods])
    methods: list[Method] = []
    if not isinstance(raw, list | tuple):
        part.fault("methods", "type", _('Methods are a list, such as ["int8", "prune"]; [] for none.'))
        raw = []
    for index, name in enumerate(raw):
        try:
            method = Method(name)
        except ValueError:
            known = ", ".join(Method)
            part.fault(f"methods/{index}", "unknown", _("Known methods: %(known)s.") % {"known": known})
            continue
        if method not in methods:
            methods.append(method)
    drop = part.number("max_accuracy_drop", usual.max_accuracy_drop)
    if not 0 <= drop <= 1:
        text = _("The accuracy that may be lost is a share between 0 and 1: 0.01 is one point.")
        part.fault("max_accuracy_drop", "range", text)
    sparsity = part.number("sparsity", usual.sparsity)
    if not 0 < sparsity < 1:
        part.fault("sparsity", "range", _("Sparsity is the share of weights set to zero, between 0 and 1."))
    return CompressionSpec(methods=tuple(methods), max_accuracy_drop=drop, sparsity=sparsity)


def _publish_to(top: Section) -> str | None:
    raw = top.text("publish_to", most=40, required=False)
    if raw and slugify(raw) != raw:
        example = slugify(raw)[:40] or "digits"
        text = _("An endpoint address has small letters, digits and dashes, such as %(example)s.")
        top.fault("publish_to", "invalid", text % {"example": example})
    return raw or None
