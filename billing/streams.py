"""Meters in the three streams a house earns by. Pure but for the words."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

STREAMS = {
    "training": _("Training"),
    "inference": _("Endpoints"),
    "storage": _("Storage"),
    "other": _("Other usage"),
}
_BEGINNINGS = {"train": "training", "endpoint": "inference", "storage": "storage"}


def stream_of(meter: str) -> str:
    """The stream of a meter, by the first word of its key: `train.gpu` is training; a meter of no stream is other."""
    return _BEGINNINGS.get(meter.split(".")[0], "other")
