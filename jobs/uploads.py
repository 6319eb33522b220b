"""Receiving a body that may be too large for the rules or for the disk: refused by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from jobs.services.profiling import too_large
from jobs.storage import naming_full_disk
from tenants.errors import Refused
from tenants.http import Request

FORM_BYTES = 1024 * 1024  # what the other fields and the borders between them may take

View = Callable[..., HttpResponse]


class UploadRequest(Request):
    """A request with what its body was refused for, if it was."""

    upload_refusal: Refused | None


def check_length(request: Any) -> None:
    """Refuse a body that says itself that it is over the cap."""
    said = request.META.get("CONTENT_LENGTH") or "0"
    if said.isdigit() and int(said) > settings.MAX_UPLOAD_BYTES + FORM_BYTES:
        raise too_large()


def accepts_upload(view: View) -> View:
    """A page that takes a file. What a body is refused for is put into `request.upload_refusal`.

    The CSRF check reads the body, so it comes after receiving it; a refused body is acted on by nobody.
    """
    protected = csrf_protect(view)

    @csrf_exempt
    @wraps(view)
    def received(request: UploadRequest, *args: Any, **options: Any) -> HttpResponse:
        request.upload_refusal = None
        if request.method != "POST":
            return protected(request, *args, **options)
        try:
            check_length(request)
            with naming_full_disk():
                _ = request.POST, request.FILES
        except Refused as refusal:
            request.upload_refusal = refusal
            return view(request, *args, **options)
        return protected(request, *args, **options)

    return received
