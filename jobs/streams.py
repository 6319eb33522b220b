"""Answers that stream a stored file, decrypted on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.text import slugify

from jobs.models import Artifact
from jobs.services.registry import open_artifact
from tenants.actor import Actor


def send_artifact(request: HttpRequest, actor: Actor, artifact: Artifact) -> StreamingHttpResponse:
    """One file of a model version, for page and API alike."""
    version = artifact.version
    model = slugify(version.model.name) or "model"
    return download(
        request,
        open_artifact(actor, artifact),
        name=f"{model}-v{version.number}-{version.variant}-{artifact.name}",
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
    )


def download(
    request: HttpRequest, chunks: Iterator[bytes], *, name: str, size_bytes: int, sha256: str
) -> StreamingHttpResponse:
    """A file to be saved, never shown. Its first piece is read now, so that a damaged file is an error."""
    first = next(chunks, b"")
    body: Any = chain([first], chunks)
    if isinstance(request, ASGIRequest):
        # an ASGI server would first collect the whole of a plain iterator in memory
        body = _off_the_loop(body)
    response = StreamingHttpResponse(body, content_type="application/octet-stream")
    response["Content-Length"] = str(size_bytes)
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "private, no-store"
    response["ETag"] = f'"{sha256}"'
    return response


async def _off_the_loop(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    step = sync_to_async(lambda: next(chunks, None), thread_sensitive=False)
    while (chunk := await step()) is not None:
        yield chunk
