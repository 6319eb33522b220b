"""Components and filters of every page. docs/ui.md shows each with an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from console import formats, graphics
from jobs import said as stored_words
from jobs.words import quality_label, recipe_label

register = template.Library()

SHAPES = {"ok": "dot", "bad": "diamond", "warn": "ring", "info": "pulse", "idle": "ring"}


# -- graphics ------------------------------------------------------------------------------------------------
@register.simple_tag
def icon(name: str, label: str = "", large: bool = False) -> SafeString:
    """`{% icon "database" %}`: one Lucide icon, inline."""
    return graphics.icon(name, label, large)


@register.simple_tag
def shape(kind: str = "", tone: str = "idle") -> SafeString:
    """The mark of a badge; without a kind, the usual one of its tone."""
    return graphics.shape(kind or SHAPES.get(tone, "dot"), tone)


@register.simple_tag
def sparkline(values: Iterable[Any], label: str = "") -> SafeString:
    """`{% sparkline job.recent_losses "Loss" %}`"""
    return graphics.sparkline(values or [], label)


@register.inclusion_tag("ui/stacked_bars.html")
def stacked_bars(data: Mapping[str, Any], title: str = "") -> dict[str, Any]:
    """`{% stacked_bars data "Cost per day" %}` with labels, series and unit; a table is part of it."""
    return graphics.stacked_bars({"title": title, **data})


# -- components with a body ----------------------------------------------------------------------------------
@register.simple_block_tag
def card(
    content: str,
    title: str = "",
    hint: str = "",
    flush: bool = False,
    tone: str = "",
    id: str = "",
    action_url: str = "",
    action_label: str = "",
) -> str:
    """`{% card title="Versions" flush=True %}…{% endcard %}`; flush for tables and rows."""
    return render_to_string(
        "ui/card.html",
        {
            "content": content,
            "title": title,
            "hint": hint,
            "flush": flush,
            "tone": tone,
            "id": id,
            "action_url": action_url,
            "action_label": action_label,
        },
    )


@register.simple_block_tag
def dialog(content: str, id: str, title: str, large: bool = False, open: bool = False) -> str:
    """`{% dialog id="invite" title="Invite" %}…{% enddialog %}`; opened by `data-dialog="invite"`."""
    return render_to_string(
        "ui/dialog.html", {"content": content, "id": id, "title": title, "large": large, "open": open}
    )


@register.simple_block_tag
def table(content: str, label: str = "", stack: bool = False, extra: str = "") -> str:
    """`{% table label="Jobs" stack=True %}<thead>…{% endtable %}`; stack turns rows into cards on phones."""
    return render_to_string(
        "ui/table.html", {"content": content, "label": label, "stack": stack, "extra": extra}
    )


@register.simple_block_tag(takes_context=True)
def confirm(
    context: template.Context, content: str, id: str, title: str, action: str, label: str, tone: str = "bad"
) -> str:
    """A dialog that asks before a POST; its body may hold text and extra fields."""
    return render_to_string(
        "ui/confirm.html",
        {
            "content": content,
            "id": id,
            "title": title,
            "action": action,
            "label": label,
            "tone": tone,
            "csrf_token": context.get("csrf_token"),
        },
    )


@register.simple_tag(takes_context=True)
def post_button(
    context: template.Context, label: str, action: str, icon: str = "", kind: str = "", **fields: Any
) -> str:
    """`{% post_button "Stop" url icon="square" kind="btn-danger" name=value %}`: one button, one POST."""
    return render_to_string(
        "ui/post_button.html",
        {
            "label": label,
            "action": action,
            "icon": icon,
            "kind": kind,
            "fields": fields,
            "csrf_token": context.get("csrf_token"),
        },
    )


# -- filters -------------------------------------------------------------------------------------------------
@register.filter
def money(value: Any, currency: str = "USD") -> str:
    """`{{ job.cost|money:job.currency }}` -> `$1.25`"""
    return formats.money(value, currency or "USD")


@register.filter
def number(value: Any, places: int | None = None) -> str:
    """`{{ 1797|number }}` -> `1,797`"""
    return formats.number(value, places)


@register.filter
def percent(value: Any, places: int = 1) -> str:
    """`{{ 0.975|percent }}` -> `97.5 %`"""
    return formats.percent(value, places)


@register.filter(name="bytes")
def bytes_filter(value: Any) -> str:
    """`{{ 3355443|bytes }}` -> `3.2 MiB`"""
    return formats.size_of(value)


@register.filter
def ms(value: Any) -> str:
    """`{{ version.latency_p50_ms|ms }}` -> `0.024 ms`"""
    return formats.milliseconds(value)


@register.filter
def quality(value: Any) -> str:
    """`{{ job.recipe|quality }}` -> `Accuracy`: what models of this recipe are judged by"""
    return quality_label(value)


@register.filter
def recipe(value: Any) -> str:
    """`{{ job.recipe|recipe }}` -> `Images`"""
    return recipe_label(value)


@register.filter
def duration(value: Any) -> str:
    """`{{ 125|duration }}` -> `2 m 5 s`"""
    return formats.duration(value)


@register.filter
def ago(value: datetime | None) -> str:
    """`{{ job.created_at|ago }}`: relative now, kept fresh by <local-time>; the exact time is its title."""
    return _time(value, relative=True)


@register.filter
def at(value: datetime | None) -> str:
    """`{{ job.started_at|at }}`: the moment in the reader's own time zone, UTC until the script runs."""
    return _time(value, relative=False)


@register.filter
def at_second(value: datetime | None) -> str:
    """`{{ event.at|at_second }}`: where several things happen in one minute."""
    return _time(value, relative=False, mode="second")


def _time(value: datetime | date | None, *, relative: bool, mode: str = "") -> str:
    if value is None or value == "":
        return formats.NOTHING
    if not isinstance(value, datetime):
        return date_format(value, "DATE_FORMAT")
    if timezone.is_naive(value):
        value = value.replace(tzinfo=UTC)
    exact = f"{localtime(value, UTC):%Y-%m-%d %H:%M:%S} UTC"
    shown = formats.ago(value) if relative else exact.removesuffix(" UTC")[:-3] + " UTC"
    return format_html(
        '<local-time datetime="{0}"{1}><time datetime="{0}" title="{2}">{3}</time></local-time>',
        value.isoformat(),
        format_html(' mode="{}"', "ago" if relative else mode) if relative or mode else "",
        exact,
        shown,
    )


@register.filter
def said(text: Any) -> str:
    """`{{ job.waiting_for|said }}`: a sentence that was written down in English, in the reader's language."""
    return stored_words.said(text)


@register.filter
def initials(value: Any) -> str:
    """Up to two letters for an avatar, of a name or an address."""
    words = str(value or "?").split("@")[0].replace(".", " ").replace("-", " ").replace("_", " ").split()
    return "".join(word[0] for word in words[:2]).upper() or "?"
