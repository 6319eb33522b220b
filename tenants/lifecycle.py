"""move(): the one guarded way to change a status.

One UPDATE that names the legal sources decides a race in the database; event, audit entry and nudge follow in
the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants import audit, outbox
from tenants.actor import Actor
from tenants.errors import IllegalMove


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """The states of one noun. `arrows` maps a state to the states it may be entered from."""

    noun: str  # "job", as in the audit action "job.running"
    arrows: Mapping[str, frozenset[str]]
    on_move: Callable[[Any, str, str], None] | None = None  # (object, new status, reason): writes the event

    @property
    def terminal(self) -> frozenset[str]:
        """States no arrow leaves."""
        left = frozenset().union(*self.arrows.values())
        return frozenset(self.arrows) - left


def arrows(table: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """{"running": ["placed"]} with frozen values."""
    return {state: frozenset(sources) for state, sources in table.items()}


def move(target: Any, *, to: str, by: Actor, reason: str = "", **changes: Any) -> None:
    """Change `target.status` to `to` if an arrow leads there, else raise IllegalMove and change nothing.

    `changes` are further columns set by the same UPDATE. The object in hand is brought up to date.
    """
    lifecycle: Lifecycle = target.LIFECYCLE
    now = timezone.now()
    with transaction.atomic():
        changed = (
            type(target)
            ._base_manager.filter(pk=target.pk, status__in=lifecycle.arrows[to])
            .update(status=to, status_at=now, **changes)
        )
        if not changed:
            current = type(target)._base_manager.values_list("status", flat=True).get(pk=target.pk)
            labels = {
                value: str(label).lower() for value, label in target._meta.get_field("status").flatchoices
            }
            text = _("This is %(current)s by now; it cannot become %(wanted)s from there.")
            names = {"current": labels.get(current, current), "wanted": labels.get(to, to)}
            raise IllegalMove(text % names)
        for name, value in {"status": to, "status_at": now, **changes}.items():
            setattr(target, name, value)
        if lifecycle.on_move is not None:
            lifecycle.on_move(target, to, reason)
        audit.record(by, f"{lifecycle.noun}.{to}", target, reason=reason)
        if stream := getattr(target, "live_stream", None):
            outbox.nudge(stream)
