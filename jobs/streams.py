"""Answers that stream: a stored file, decrypted on the way, or lines that are too many for the memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain
from tempfile import TemporaryFile
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.text import slugify

from jobs.models import Artifact, JobFile
from jobs.services.job_files import open_file
from jobs.services.registry import open_artifact
from jobs.storage import CHUNK_BYTES
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


def send_job_file(request: HttpRequest, actor: Actor, file: JobFile) -> StreamingHttpResponse:
    """One file that a job left, for page and API alike."""
    return download(
        request,
        open_file(actor, file),
        name=f"{slugify(file.job.name) or 'job'}-{file.name}",
        size_bytes=file.size_bytes,
        sha256=file.sha256,
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


def send_lines(
    request: HttpRequest, pieces: Iterable[str], *, name: str, content_type: str
) -> StreamingHttpResponse:
    """Text that is made while it is read from the database: first into a file without a name, then out.

    The rows are read in this thread, whose connection ends with the request; the file needs none.
    """
    file = TemporaryFile()  # noqa: SIM115  closed when the last piece is out, or with the response
    for piece in pieces:
        file.write(piece.encode())
    size_bytes = file.tell()
    file.seek(0)
    body: Any = iter(lambda: file.read(CHUNK_BYTES), b"")
    if isinstance(request, ASGIRequest):
        body = _off_the_loop(body)
    response = StreamingHttpResponse(body, content_type=content_type)
    response["Content-Length"] = str(size_bytes)
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["Cache-Control"] = "private, no-store"
    return response


async def _off_the_loop(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    step = sync_to_async(lambda: next(chunks, None), thread_sensitive=False)
    while (chunk := await step()) is not None:
        yield chunk
