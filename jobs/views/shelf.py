"""Archiving and bringing back, on the pages of datasets, models and their versions alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from tenants.errors import Refused
from tenants.http import Request


def shelved(
    request: Request, target: Any, act: Callable[[], None], *, done: str, then: Any = None
) -> HttpResponse:
    """Act and go on to `then`; where it is refused for its state, back to the page of `target` with the reason."""
    try:
        act()
    except Refused as refusal:
        if refusal.status != 409:
            raise
        messages.error(request, refusal.detail)
        return redirect(target)
    messages.success(request, done)
    return redirect(then or target)
