"""The part of the form of a new job that most people leave alone."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from trainer.contract import COMPILE, SCHEDULES, WATCHED_METRICS, TrainingSpec

_USUAL = TrainingSpec()
_PLAIN = (
    "schedule", "warmup_steps", "clip_norm", "compile", "checkpoint_every_s", "checkpoint_every_steps",
)  # fmt: skip
FIELDS = (*_PLAIN, "privacy_epsilon", "grad_accumulation", "patience", "watched_metric", "min_processes")
SCHEDULE_LABELS = {
    "cosine": _("cosine: falls in a curve"),
    "linear": _("linear: falls evenly"),
    "constant": _("constant: stays"),
}
METRIC_LABELS = {"val/loss": _("validation loss"), "val/accuracy": _("validation accuracy")}
COMPILE_LABELS = {"off": _("off"), "on": _("on: half a minute at the start, then faster steps")}


class TrainingFields(forms.Form):
    """Fields under "Advanced"; an empty one means the usual."""

    schedule = forms.ChoiceField(
        label=_("Learning rate over time"), required=False, initial=_USUAL.schedule,
        choices=[(one, SCHEDULE_LABELS.get(one, one)) for one in SCHEDULES],
    )  # fmt: skip
    warmup_steps = forms.IntegerField(
        label=_("Warm-up steps"), required=False, help_text=_("Empty: a twentieth of all steps.")
    )
    clip_norm = forms.FloatField(
        label=_("Longest gradient"), required=False, help_text=_("Longer ones are cut. Empty: never.")
    )
    grad_accumulation = forms.IntegerField(
        label=_("Pieces of a batch"), required=False,
        help_text=_("More pieces need less memory and learn the same. Empty: as few as fit the processes."),
    )  # fmt: skip
    patience = forms.IntegerField(
        label=_("Stop early after"),
        required=False,
        help_text=_("Epochs without a better value. Empty: never."),
    )
    watched_metric = forms.ChoiceField(
        label=_("Better by"), required=False,
        choices=[(one, METRIC_LABELS.get(one, one)) for one in WATCHED_METRICS],
    )  # fmt: skip
    compile = forms.ChoiceField(
        label="torch.compile", required=False, initial=_USUAL.compile,
        choices=[(one, COMPILE_LABELS.get(one, one)) for one in COMPILE],
    )  # fmt: skip
    checkpoint_every_s = forms.FloatField(
        label=_("Checkpoint every"), required=False, initial=_USUAL.checkpoint_every_s,
        help_text=_("After a crash it goes on from the last one."),
    )  # fmt: skip
    checkpoint_every_steps = forms.IntegerField(
        label=_("And every so many steps"), required=False, help_text=_("Empty: by the clock alone.")
    )
    min_processes = forms.IntegerField(
        label=_("Fewest processes"), required=False,
        help_text=_("It starts with as few when no more are free, on the same batches. Empty: it waits for all."),
    )  # fmt: skip

    privacy_epsilon = forms.FloatField(
        label=_("Privacy (epsilon)"), required=False, widget=forms.NumberInput(attrs={"step": "any"}),
        help_text=_("Bounds what the model tells of any single row; 1 is strict, 8 is loose. Empty: not bounded."),
    )  # fmt: skip

    def training_data(self) -> dict[str, Any]:
        """The section `training` as the API takes it."""
        said = self.cleaned_data
        plain = (*_PLAIN, "privacy_epsilon")
        found = {name: said[name] for name in plain if said.get(name) not in (None, "")}
        if said.get("grad_accumulation") is not None:
            found["grad_accumulation"] = said["grad_accumulation"]
        if said.get("patience") is not None:
            found["early_stopping"] = {
                "patience": said["patience"],
                **({"metric": said["watched_metric"]} if said.get("watched_metric") else {}),
            }
        return found

    @property
    def advanced_is_open(self) -> bool:
        """Something in there differs from the usual, or is wrong."""
        told = {name: self[name].value() for name in FIELDS}
        changed = any(
            value not in (None, "", self.fields[name].initial, str(self.fields[name].initial))
            for name, value in told.items()
            if name != "watched_metric"
        )
        return changed or any(name in self.errors for name in FIELDS)


def initial_training(spec: dict[str, Any]) -> dict[str, Any]:
    """A stored section as initial values of these fields."""
    early = spec.get("early_stopping") or {}
    pieces = spec.get("grad_accumulation")
    return {
        **{name: spec.get(name) for name in (*_PLAIN, "privacy_epsilon") if spec.get(name) is not None},
        "grad_accumulation": None if pieces == "auto" else pieces,
        "patience": early.get("patience"),
        "watched_metric": early.get("metric"),
    }
