"""Samples for the living style page: one of everything, so that a change of a component is seen at once."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from math import exp, sin
from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils import timezone

TONES = ("ok", "bad", "warn", "info", "idle")
SHAPES = ("dot", "ring", "half", "pulse", "diamond", "diamond-ring")


class SampleForm(forms.Form):
    """Each kind of field, one with an error."""

    name = forms.CharField(help_text="Letters, digits and dashes.", max_length=60)
    epochs = forms.IntegerField(min_value=1, initial=12)
    recipe = forms.ChoiceField(choices=[("image", "Image"), ("text", "Text"), ("tabular", "Table")])
    note = forms.CharField(widget=forms.Textarea, required=False)
    notify = forms.BooleanField(
        required=False, label="Tell me by e-mail", help_text="When it ends, either way."
    )
    precision = forms.ChoiceField(widget=forms.RadioSelect, choices=[("fp32", "fp32"), ("bf16", "bf16")])


def samples(request: HttpRequest) -> dict[str, Any]:
    """Everything the style page shows."""
    now = timezone.now()
    days = [f"{now - timedelta(days=29 - i):%d %b}" for i in range(30)]
    steps = range(0, 900, 3)
    return {
        "tones": TONES,
        "shapes": SHAPES,
        "series": range(1, 7),
        "form": SampleForm({"name": "", "epochs": "12", "recipe": "image"}),
        "page_obj": Paginator(range(95), 20).page(2),
        "facts": [("Recipe", "image"), ("Processes", 2), ("Dataset", "digits v1"), ("Checksum", "9f2c…e1")],
        "tabs": [
            {"key": "charts", "label": "Charts", "url": "#charts", "icon": "chart-line"},
            {"key": "logs", "label": "Logs", "url": "#logs", "icon": "scroll-text", "count": 128},
            {"key": "cost", "label": "Cost", "url": "#cost", "icon": "wallet"},
        ],
        "curl": 'curl -s https://tauon.example/api/v1/jobs \\\n  -H "Authorization: Bearer $TOKEN"',
        "bars": {
            "labels": days,
            "series": [
                {
                    "name": "Training",
                    "values": [Decimal(str(round(3 + 2 * sin(i / 3) + i % 4, 2))) for i in range(30)],
                },
                {"name": "Endpoints", "values": [Decimal(str(round(0.5 + i / 22, 2))) for i in range(30)]},
                {"name": "Storage", "values": [Decimal("0.35")] * 30},
            ],
            "unit": "USD",
        },
        "losses": [2.3, 1.8, 1.4, 1.1, 0.9, 0.7, 0.66, 0.52, 0.5, 0.44, 0.41],
        "points": {
            "train": [
                [s, round(2.3 * exp(-s / 260) + 0.12 + 0.09 * sin(s * 1.7) * exp(-s / 900), 4)] for s in steps
            ],
            "validation": [[s, round(2.2 * exp(-s / 280) + 0.16, 4)] for s in range(0, 900, 90)],
        },
        "before": now - timedelta(minutes=7),
        "cost": Decimal("1234.5"),
        "tiny": Decimal("0.000432"),
        "log_lines": [
            (1, "info", "attempt 1 started with 2 processes"),
            (2, "info", "epoch 1/12 loss 1.8312 accuracy 0.641"),
            (3, "warning", "12 rows were left out: column label is empty"),
            (4, "error", "RuntimeError: out of memory while allocating 512.0 MiB"),
        ],
    }
