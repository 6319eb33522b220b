"""How far what an endpoint is asked and says is from what its model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from jobs.models import Endpoint
from jobs.services import inputs, predictions_drift
from jobs.services.inputs import Gauge
from tenants.http import Request
from tenants.permissions import allowed

WINDOWS = {"1": timedelta(hours=1), "24": timedelta(days=1), "168": timedelta(days=7)}
USUAL = "24"
BAR, GAP, HEIGHT = 7.0, 4.0, 44.0


@require_GET
def endpoint_drift(request: Request, public_id: str) -> HttpResponse:
    rows = Endpoint.objects.visible_to(request.actor)
    rows = rows.select_related("tenant", "current__version__dataset_version")
    endpoint = get_object_or_404(rows, public_id=public_id)
    hours = request.GET.get("hours", USUAL)
    hours = hours if hours in WINDOWS else USUAL
    found = inputs.drift_of(endpoint.current, window=WINDOWS[hours]) if endpoint.current else None
    # guests see how far, not what the training rows looked like
    is_guest = request.actor.tenant is None or endpoint.tenant_id != request.actor.tenant.pk
    context = {
        "endpoint": endpoint,
        "hours": hours,
        "windows": [("1", _("Last hour")), ("24", _("Last 24 hours")), ("168", _("Last 7 days"))],
        "drift": found,
        "gauges": [(one, None if is_guest else picture(one)) for one in found.gauges] if found else [],
        "predictions": predictions_drift.of(endpoint, window=WINDOWS[hours]),
        "fewest": inputs.FEWEST_ROWS,
        "may_publish": allowed(request.actor, "endpoints.publish", endpoint),
    }
    return render(request, "jobs/endpoints/drift.html", context)


@dataclass(frozen=True, slots=True)
class Picture:
    """Pairs of bars as an SVG draws them."""

    width: float
    height: float
    bars: list[dict[str, Any]]


def picture(gauge: Gauge) -> Picture:
    """Two bars a bin: trained and live; the highest of all fills the height."""
    most = max((max(one.trained, one.live) for one in gauge.bins), default=0.0) or 1.0
    bars = []
    for number, one in enumerate(gauge.bins):
        x = number * (2 * BAR + GAP)
        then, now = HEIGHT * one.trained / most, HEIGHT * one.live / most
        bars.append(
            {
                "bin": one,
                "then": {"x": f"{x:.1f}", "y": f"{HEIGHT - then:.2f}", "h": f"{then:.2f}"},
                "now": {"x": f"{x + BAR:.1f}", "y": f"{HEIGHT - now:.2f}", "h": f"{now:.2f}"},
            }
        )
    return Picture(len(gauge.bins) * (2 * BAR + GAP) - GAP, HEIGHT, bars)
