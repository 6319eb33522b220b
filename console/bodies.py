"""Refuses bodies that are too large before a byte of them is written to disk."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings

SLACK_BYTES = 1024 * 1024  # the other fields and boundaries of a multipart body


def bounded(application: Any) -> Any:
    """An ASGI application that answers 413 when Content-Length says more than an upload may have.

    A body of unknown length is counted while it arrives: past the bound the client is taken as gone.
    """

    async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
        most = settings.MAX_UPLOAD_BYTES + SLACK_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            await _refuse(scope, send, most)
            return
        taken = 0

        async def counted() -> dict[str, Any]:
            nonlocal taken
            message: dict[str, Any] = await receive()
            taken += len(message.get("body", b""))
            return {"type": "http.disconnect"} if taken > most else message

        await application(scope, counted, send)

    return http


async def _refuse(scope: dict[str, Any], send: Any, most: int) -> None:
    body = {
        "type": "/docs/errors#too_large",
        "title": "Too large",
        "status": 413,
        "detail": f"The body is larger than {most // SLACK_BYTES} MiB. Send less, or raise TAUON_MAX_UPLOAD_BYTES.",
        "instance": scope["path"],
        "code": "too_large",
        "errors": [],
    }
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
