"""A giant body is refused before it is read."""

from __future__ import annotations

from console.bodies import SLACK_BYTES, bounded


async def answer(application, *, headers=(), parts=()):
    """Run one request; returns what was sent."""
    sent, left = [], list(parts)

    async def receive():
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    await bounded(application)({"type": "http", "path": "/x", "headers": list(headers)}, receive, send)
    return sent


async def reader(scope, receive, send):
    """An application that reads all it is given and says how much that was."""
    total, message = 0, {"type": "http.request", "more_body": True}
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        total += len(message.get("body", b""))
    await send({"type": message["type"], "read": total})


async def test_a_declared_giant_gets_413_and_nothing_is_read(settings):
    settings.MAX_UPLOAD_BYTES = 10
    sent = await answer(reader, headers=[(b"content-length", str(SLACK_BYTES + 11).encode())])
    assert sent[0]["status"] == 413
    assert b"TAUON_MAX_UPLOAD_BYTES" in sent[1]["body"]


async def test_an_undeclared_giant_is_cut_off(settings):
    settings.MAX_UPLOAD_BYTES = 10
    sent = await answer(reader, parts=[b"x" * SLACK_BYTES, b"x" * 20, b"more"])
    assert sent[0] == {"type": "http.disconnect", "read": SLACK_BYTES}


async def test_a_small_body_passes(settings):
    sent = await answer(reader, headers=[(b"content-length", b"3")], parts=[b"abc"])
    assert sent == [{"type": "http.request", "read": 3}]
