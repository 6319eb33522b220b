"""Small pictures drawn on the server: icons, sparklines, stacked bars. No script, no style attribute."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from math import ceil, floor, log10
from typing import Any

from django.conf import settings
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from console import formats

SPRITE = "vendor/lucide/icons.svg"
SERIES_COLOURS = 6
_DAY = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
HEIGHT, TOP, BOTTOM, LEFT = 240, 12, 26, 9.0  # px, px, px, per cent of the width


@cache
def icons() -> dict[str, str]:
    """Read the vendored Lucide sprite once: name -> its shapes."""
    text = (settings.BASE_DIR / "static" / SPRITE).read_text(encoding="utf-8")
    return dict(re.findall(r'<symbol id="([^"]+)"[^>]*>(.*?)</symbol>', text))


def icon(name: str, label: str = "", large: bool = False) -> SafeString:
    """One inline icon; silent for screen readers unless it has a label of its own."""
    shapes = icons().get(name)
    if shapes is None:
        raise KeyError(
            f"There is no icon {name!r} in static/{SPRITE}. Add its symbol there, or use one of: "
            + ", ".join(sorted(icons()))
        )
    return format_html(
        '<svg class="icon{}" viewBox="0 0 24 24" {}>{}</svg>',
        " icon-l" if large else "",
        format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"'),
        mark_safe(shapes),  # from our own vendored file
    )


def sparkline(values: Iterable[Any], label: str = "") -> SafeString:
    """A line without axes; the words beside it carry the meaning."""
    read = [float(v) for v in (formats.decimal_or_none(v) for v in values) if v is not None]
    if len(read) < 2:
        return SafeString("")
    low, high = min(read), max(read)
    span = (high - low) or 1.0
    points = " ".join(
        f"{i * 100 / (len(read) - 1):.1f},{22 - (v - low) / span * 20:.1f}" for i, v in enumerate(read)
    )
    return format_html(
        '<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" {}><polyline points="{}"/></svg>',
        format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"'),
        points,
    )


def nice_ceiling(top: float) -> tuple[float, float]:
    """The axis end and its step: 1, 2 or 5 times a power of ten, about four steps."""
    if top <= 0:
        return 1.0, 0.5
    raw = top / 4
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.9999)
    return ceil(top / step - 1e-9) * step, step


def axis_label(value: float, unit: str) -> str:
    """Money on an axis drops its cents when whole; other units stay plain numbers."""
    if unit in formats.SIGNS:
        text = formats.number(round(value, 10))
        return f"{formats.SIGNS[unit]}{text}"
    return formats.number(round(value, 10))


def day_label(label: str) -> str:
    """`2026-11-23` as `23 Nov`; every other label as it is."""
    return date_format(date.fromisoformat(label), "MONTH_DAY_FORMAT") if _DAY.fullmatch(label) else label


def value_label(value: Any, unit: str) -> str:
    """A value with its unit, for tips and the table."""
    if unit in formats.SIGNS:
        return formats.money(value, unit)
    return f"{formats.number(value)} {unit}".strip()


def stacked_bars(data: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out bars in per cent of the width, so that text keeps its size on a phone."""
    labels: Sequence[str] = [day_label(str(label)) for label in data.get("labels") or []]
    series = [
        {
            "name": one["name"],
            "colour": i % SERIES_COLOURS + 1,
            "values": [formats.decimal_or_none(v) or 0 for v in one["values"]],
        }
        for i, one in enumerate(data.get("series") or [])
    ]
    unit = str(data.get("unit") or "")
    totals = [sum(one["values"][i] for one in series) for i in range(len(labels))]
    end, step = nice_ceiling(float(max(totals, default=0)))
    plot = HEIGHT - TOP - BOTTOM
    slot = (100 - LEFT - 1) / max(1, len(labels))
    every = max(1, ceil(len(labels) / 8))
    bars = []
    for i, label in enumerate(labels):
        below, rects = 0.0, []
        for one in series:
            value = float(one["values"][i])
            tall = value / end * plot
            if tall > 0:
                rects.append(
                    {
                        "y": f"{TOP + plot - below - tall:.2f}",
                        "h": f"{max(tall, 0.6):.2f}",
                        "colour": one["colour"],
                    }
                )
                below += tall
        tip = [f"{label}: {value_label(totals[i], unit)}"]
        if len(series) > 1:
            tip += [
                f"{one['name']}: {value_label(one['values'][i], unit)}" for one in series if one["values"][i]
            ]
        bars.append(
            {
                "label": label,
                "tip": "\n".join(tip),
                "slot_x": f"{LEFT + i * slot:.3f}%",
                "slot_w": f"{slot:.3f}%",
                "x": f"{LEFT + i * slot + slot * 0.18:.3f}%",
                "w": f"{slot * 0.64:.3f}%",
                "middle": f"{LEFT + (i + 0.5) * slot:.3f}%",
                "show": i % every == 0,
                "thin": (i // every) % 2 == 1,
                "rects": rects,
            }
        )
    ticks = []
    value = 0.0
    while value <= end + step / 2:
        ticks.append({"y": f"{TOP + plot - value / end * plot:.2f}", "label": axis_label(value, unit)})
        value += step
    rows = [
        (label, [value_label(one["values"][i], unit) for one in series], value_label(totals[i], unit))
        for i, label in enumerate(labels)
    ]
    return {
        "bars": bars,
        "ticks": ticks,
        "series": series,
        "rows": rows,
        "title": data.get("title", ""),
        "left": f"{LEFT}%",
        "label_x": f"{LEFT - 0.8}%",
        "plot_top": TOP,
        "plot_h": plot,
        "text_y": HEIGHT - 8,
        "total": value_label(sum(totals), unit),
        "many": len(series) > 1,
    }


GLYPHS = {"○": "ring", "◔": "half", "●": "dot", "◆": "diamond", "◇": "diamond-ring"}  # as in lifecycles


def shape(kind: str, tone: str = "idle") -> SafeString:
    """The mark inside a badge, so that a status is told by form as well as colour."""
    kind = GLYPHS.get(kind, kind)
    if kind == "dot" and tone == "info":
        kind = "pulse"  # it is going on right now
    drawn = {
        "dot": '<circle cx="5" cy="5" r="4" stroke="none"/>',
        "ring": '<circle cx="5" cy="5" r="3.6" fill="none" stroke-width="1.7"/>',
        "half": '<circle cx="5" cy="5" r="3.6" fill="none" stroke-width="1.7"/>'
        '<path d="M5 1.4a3.6 3.6 0 0 1 0 7.2z" stroke="none"/>',
        "pulse": '<circle class="pulse" cx="5" cy="5" r="4" stroke="none"/>'
        '<circle cx="5" cy="5" r="4" stroke="none"/>',
        "diamond": '<path d="M5 0l5 5-5 5-5-5z" stroke="none"/>',
        "diamond-ring": '<path d="M5 1l4 4-4 4-4-4z" fill="none" stroke-width="1.6"/>',
    }
    return format_html(
        '<svg class="shape" viewBox="0 0 10 10" aria-hidden="true">{}</svg>',
        mark_safe(drawn.get(kind, drawn["dot"])),
    )


def attributes(pairs: Mapping[str, Any]) -> SafeString:
    """`data_x="1"` keyword arguments of a tag as escaped attributes."""
    return format_html_join(
        "", ' {}="{}"', ((k.replace("_", "-"), v) for k, v in pairs.items() if v not in (None, "", False))
    )
