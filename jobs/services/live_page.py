"""What a job's page shows before its socket speaks: reads only."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs.models import Attempt, Job, JobEvent, ModelVersion
from jobs.said import said
from jobs.services import curves
from jobs.services.progress import PHASES, event_row, in_words
from jobs.spec_labels import written
from jobs.states import JobKind, Reason
from jobs.words import QUALITIES, quality_label, quality_of, recipe_label
from trainer.contract import EventKind, Quality

MOST_POINTS = 3000  # of one line; a longer one is thinned for the first picture
LOG_LINES = 300
EVENT_ROWS = 500
SERIES = {"train": gettext_lazy("Training"), "val": gettext_lazy("Validation")}
CHARTS = {"loss": {"log": True}, **{str(one): {"percent": True} for one in Quality}}
_TOLD = ("label", "prediction", "text", "items", "answers")  # outputs, the one to show first
_DRAWN = (EventKind.METRIC, EventKind.PROGRESS)


def first_state(job: Job) -> dict[str, Any]:
    """Charts, log and counters up to the job's `last_seq` as it was read: the socket goes on from there."""
    until = JobEvent.objects.filter(job=job, seq__lte=job.last_seq)
    quality = quality_of(job.recipe)
    charts: dict[str, dict[str, list[list[float]]]] = {"loss": {}, str(quality): {}}
    latest: dict[str, float] = {}
    drawn = curves.read(job)
    for name, step, value in drawn.points:
        part, _slash, what = name.partition("/")
        charts.setdefault(what or part, {}).setdefault(str(SERIES.get(part, part)), []).append([step, value])
        latest[name] = value
    lines = until.filter(kind__in=[EventKind.LOG, EventKind.ERROR]).order_by("-seq")[:LOG_LINES]
    return {
        "charts": [
            {
                "key": name,
                "source": f"points-{name}",
                "title": _title(name),
                "log": CHARTS.get(name, {}).get("log", False),
                "percent": CHARTS.get(name, {}).get("percent", False),
                "points": {series: _thin(line) for series, line in lines.items()},
            }
            for name, lines in charts.items()
        ],
        "points": drawn.count,
        "phase_label": PHASES.get(job.phase, "") or job.state.label,
        "loss": latest.get("train/loss"),
        "accuracy": latest.get(f"val/{quality}"),
        "quality_metric": f"val/{quality}",
        "quality_title": _("Validation accuracy")
        if quality is Quality.ACCURACY
        else quality_label(job.recipe),
        "log_lines": [log_row(event) for event in reversed(lines)],
    }


def log_row(event: JobEvent) -> dict[str, Any]:
    level = "error" if event.kind == EventKind.ERROR else event.data.get("level", "info")
    return {"seq": event.seq, "level": level, "text": said(event.data.get("text"))}


def events(job: Job) -> list[dict[str, Any]]:
    """What happened, without the points of the charts; newest first."""
    rows = JobEvent.objects.filter(job=job).exclude(kind__in=_DRAWN).order_by("-seq")[:EVENT_ROWS]
    return [{**event_row(row), "at": row.at, "text": in_words(row)} for row in rows]


def attempts(job: Job) -> list[dict[str, Any]]:
    """Every try with how long it held its place and why it ended."""
    return [
        {
            "attempt": attempt,
            "held_s": (attempt.ended_at - attempt.created_at).total_seconds() if attempt.ended_at else None,
            "reason": str(Reason(attempt.reason).label),
            "gpus": _gpus(attempt),
        }
        for attempt in job.attempts.order_by("-number")
    ]


def facts(job: Job) -> list[tuple[str, Any]]:
    """What was asked for, in a few lines."""
    spec = job.spec
    if job.predictor is not None:
        return _facts_of_predictions(job)
    hyper, compression = spec.get("hyperparameters", {}), spec.get("compression", {})
    return [
        (_("Recipe"), recipe_label(job.recipe)),
        (_("Dataset"), str(job.dataset_version)),
        (_("Epochs"), hyper.get("epochs", "–")),
        (_("Batch size"), hyper.get("batch_size", "–")),
        (_("Learning rate"), hyper.get("learning_rate", "–")),
        (_("Optimizer"), hyper.get("optimizer", "–")),
        (_("Precision"), spec.get("resources", {}).get("precision", "–")),
        (_("Compression"), ", ".join(compression.get("methods", [])) or _("none")),
        (_("Labels"), written(spec.get("labels") or {}) or _("none")),
    ]


def _facts_of_predictions(job: Job) -> list[tuple[str, Any]]:
    columns = [f"{name} ← {column}" for name, column in job.spec["columns"].items() if name != column]
    return [
        (_("Kind"), str(JobKind(job.kind).label)),
        (_("Model"), str(job.predictor)),
        (_("Dataset"), str(job.dataset_version)),
        (_("Columns called otherwise"), ", ".join(columns) or _("none")),
        (_("Copied columns"), ", ".join(job.spec["keep"]) or _("none")),
        (_("Labels"), written(job.spec.get("labels") or {}) or _("none")),
    ]


def answers(job: Job) -> list[dict[str, Any]]:
    """The first lines of a batch prediction, each with what to show of it."""
    found = []
    for line in (job.result or {}).get("preview", []):
        told = next((line[name] for name in _TOLD if name in line), "")
        said_of = ", ".join(map(str, told)) if isinstance(told, list) else str(told)
        shown = {"row": line["row"], "error": line.get("error", ""), "said": said_of}
        found.append({**shown, "probability": line.get("probability")})
    return found


def result(job: Job) -> dict[str, Any] | None:
    """The chosen variant beside the original, once there is one."""
    made = list(ModelVersion.objects.filter(job=job).select_related("model"))
    chosen = next((one for one in made if one.is_chosen), None)
    if chosen is None:
        return None
    original = next((one for one in made if one.variant == "original"), None)
    return {"chosen": chosen, "original": original if original != chosen else None, "variants": made}


def _gpus(attempt: Attempt) -> int:
    return attempt.gpu_leases.count()


def _title(name: str) -> str:
    return _("Loss") if name == "loss" else str(QUALITIES.get(name, name))


def _thin(line: list[list[float]]) -> list[list[float]]:
    every = -(-len(line) // MOST_POINTS)
    return line if every <= 1 else [*line[::every], line[-1]]
