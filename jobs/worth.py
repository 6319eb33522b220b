"""Whether a model is worth anything: passing the quality gate only says that compression lost little."""

from __future__ import annotations

from django.utils.translation import gettext as _

from jobs.models import ModelVersion
from jobs.said import said
from trainer.contract import Quality


def beats_guessing(version: ModelVersion) -> bool | None:
    """Clearly better than the simplest guess on the same held-out rows; None where nobody measured."""
    told = version.report.get("beats_baseline")
    if told is None:  # a run of an older engine
        baseline = version.manifest.get("baseline_accuracy")
        return None if baseline is None else version.accuracy > baseline
    return bool(told)


def warning(version: ModelVersion) -> str:
    """What to say of a model that is no better than guessing; nothing where it is better."""
    if beats_guessing(version) is not False:
        return ""
    baseline = version.manifest.get("baseline") or {}
    value = baseline.get("value", version.manifest.get("baseline_accuracy"))
    if version.manifest.get("quality", Quality.ACCURACY) == Quality.ACCURACY:
        text = _(
            "Always answering the commonest class is right for %(guess)s %% of the held-out rows, this model for "
            "%(model)s %%: that is not clearly better."
        )
        words = {"guess": f"{100 * (value or 0):.1f}", "model": f"{100 * version.accuracy:.1f}"}
    else:
        text = _(
            "The simplest guess (%(how)s) scores %(guess)s on the held-out rows, this model %(model)s: "
            "that is not clearly better."
        )
        words = {
            "how": said(baseline.get("name", "")),
            "guess": f"{value:.3f}",
            "model": f"{version.accuracy:.3f}",
        }
    advice = _("Look at the labels and columns, train longer, or add rows.")
    return f"{text % words} {advice}"
