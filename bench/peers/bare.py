"""The floor: a bare ASGI app under uvicorn, the model in the same process. No token, no limit, no count."""

from __future__ import annotations

from typing import Any

import orjson
import uvicorn
from model import answer_of, port, rows_of, run, session

MODEL = session()
HEADERS = [(b"content-type", b"application/json")]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    said = orjson.dumps(answer_of(run(MODEL, rows_of(orjson.loads(body)))))
    length = (b"content-length", str(len(said)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": said})


if __name__ == "__main__":
    uvicorn.run(app, port=port(), loop="uvloop", http="httptools", lifespan="off", access_log=False)
