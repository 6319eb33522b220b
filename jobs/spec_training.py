"""What a spec says of how the loop goes about its work, and with how few processes."""

from __future__ import annotations

from django.utils.translation import gettext as _

from jobs.spec_faults import Section
from trainer.contract import (
    COMPILE,
    PRIVATE,
    SCHEDULES,
    WATCHED_METRICS,
    EarlyStopping,
    Recipe,
    TrainingSpec,
)

MAX_STEPS = 10_000_000
MAX_PIECES = 1024
DAY_S = 24 * 3600


def read_training(part: Section) -> tuple[TrainingSpec, Section]:
    """The section `training`, and its part `early_stopping`, whose unknown fields are still to be refused."""
    usual = TrainingSpec()
    early, early_part = _early_stopping(part)
    spec = TrainingSpec(
        schedule=part.one_of("schedule", SCHEDULES, usual.schedule),
        warmup_steps=_whole_or_none(part, "warmup_steps", least=0, most=MAX_STEPS),
        clip_norm=_above_zero_or_none(part, "clip_norm"),
        grad_accumulation=_pieces(part),
        early_stopping=early,
        compile=part.one_of("compile", COMPILE, usual.compile),
        checkpoint_every_s=_seconds(part, "checkpoint_every_s", usual.checkpoint_every_s, least=1),
        checkpoint_every_steps=_whole_or_none(part, "checkpoint_every_steps", least=1, most=MAX_STEPS),
        keep_checkpoints=part.whole("keep_checkpoints", usual.keep_checkpoints, least=1, most=20),
        stall_after_s=_seconds(part, "stall_after_s", usual.stall_after_s, least=10),
        privacy_epsilon=_above_zero_or_none(part, "privacy_epsilon"),
        privacy_delta=_above_zero_or_none(part, "privacy_delta") or usual.privacy_delta,
        privacy_clip=_above_zero_or_none(part, "privacy_clip") or usual.privacy_clip,
    )
    return spec, early_part


def check_privacy(
    part: Section, training: TrainingSpec, recipe: Recipe | None, processes: int, rows: int
) -> None:
    """Private training is offered for some recipes, by one process, and with a delta that means something."""
    if training.privacy_epsilon is None or recipe is None:
        return
    if recipe not in PRIVATE:
        text = _("Private training is offered for %(known)s.")
        part.fault("privacy_epsilon", "unsupported", text % {"known": ", ".join(PRIVATE)})
    if processes != 1:
        part.fault("privacy_epsilon", "unsupported", _("Private training needs a single process."))
    if training.compile != "off":
        part.fault("compile", "unsupported", _("Private training does not go with torch.compile."))
    if rows and training.privacy_delta >= 1 / rows:
        text = _("Delta must be below one over the number of rows (%(rows)s), or nothing is promised.")
        part.fault("privacy_delta", "range", text % {"rows": rows})


def read_min_processes(part: Section, processes: int) -> int | None:
    """With how few processes the job may run; None: not with fewer than it asks for."""
    fewest = _whole_or_none(part, "min_processes", least=1)
    if fewest is not None and fewest > processes:
        text = _("At most as many as processes, which is %(n)s.")
        part.fault("min_processes", "range", text % {"n": processes})
        return None
    return fewest


def _early_stopping(part: Section) -> tuple[EarlyStopping | None, Section]:
    early, usual = part.section("early_stopping"), EarlyStopping()
    if part.raw.get("early_stopping") is None:
        return None, early
    return EarlyStopping(
        metric=early.one_of("metric", WATCHED_METRICS, usual.metric),
        patience=early.whole("patience", usual.patience, least=1, most=1000),
    ), early


def _pieces(part: Section) -> int | str:
    raw = part.take("grad_accumulation")
    if raw is None or raw == "auto":
        return "auto"
    if isinstance(raw, bool) or not isinstance(raw, int) or not 1 <= raw <= MAX_PIECES:
        text = _('This is "auto" or a whole number from 1 to %(most)s.')
        part.fault("grad_accumulation", "type", text % {"most": MAX_PIECES})
        return "auto"
    return raw


def _whole_or_none(part: Section, name: str, *, least: int, most: int = MAX_STEPS) -> int | None:
    if part.raw.get(name) is None:
        part.take(name)
        return None
    return part.whole(name, least, least=least, most=most)


def _above_zero_or_none(part: Section, name: str) -> float | None:
    if part.raw.get(name) is None:
        part.take(name)
        return None
    value = part.number(name, 1.0)
    if value <= 0:
        part.fault(name, "range", _("This is above 0, or left out."))
    return value


def _seconds(part: Section, name: str, usual: float, *, least: float) -> float:
    value = part.number(name, usual)
    if not least <= value <= DAY_S:
        text = _("Between %(least)s and %(most)s seconds.")
        part.fault(name, "range", text % {"least": f"{least:g}", "most": DAY_S})
    return value
