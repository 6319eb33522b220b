"""The scribe of one gateway: `python -m jobs.gateway.scribe FOLDER`, fed through its standard input.

It masks each record (`jobs.gateway.masks`) before anything touches the disk, and writes lines to `rq-*.jsonl`,
files only their owner may read. A file is closed after a second; whoever finds one unlocked may take it: the
shipper of `jobs.services.requests` seals the lines with their tenant's key and deletes the file.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jobs.gateway import masks
from jobs.gateway.recorder import FRAME
from jobs.gateway.usage import UsageLog

KEPT_OPEN_S = 1.0
SEGMENT_BYTES = 4 * 1024 * 1024
READ_BYTES = 1024 * 1024
_KEPT = ("id", "at", "tenant", "endpoint", "revision", "token", "status", "rows", "us", "dropped")


def line(head: dict[str, Any], rules: bytes, body: bytes, said: bytes) -> bytes:
    """One record as it is kept: nothing of the request that a rule hides is in it."""
    told = {name: head[name] for name in _KEPT if name in head}
    if rules:
        mask = masks.Mask.from_json(rules)
        told["input"] = mask.input(head["letter"], head["kind"], body, status=head["status"])
        told["output"] = mask.output(
            head["letter"], head["status"], said, streamed=head["streamed"], binary=head["binary"]
        )
        told["label"] = masks.label_of(told["output"])
    return json.dumps(told, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"


class Scribe:
    """Cuts what it is fed into records and writes them."""

    def __init__(self, folder: Path) -> None:
        self._log = UsageLog(folder, segment_bytes=SEGMENT_BYTES, prefix="rq")
        self._buffer = bytearray()
        self._since: float | None = None  # the file has been open

    def feed(self, data: bytes) -> None:
        self._buffer += data
        lines = []
        while len(self._buffer) >= FRAME.size:
            sizes = FRAME.unpack_from(self._buffer)
            end = FRAME.size + sum(sizes)
            if len(self._buffer) < end:
                break
            parts, at = [], FRAME.size
            for size in sizes:
                parts.append(bytes(self._buffer[at : at + size]))
                at += size
            del self._buffer[:end]
            try:
                lines.append(line(json.loads(parts[0]), *parts[1:]))
            except Exception as error:  # one odd request must not end the log of all others
                print(f"a record could not be written down: {error!r}", file=sys.stderr, flush=True)
        if lines:
            self._append(b"".join(lines))

    def turn(self) -> None:
        """Close the file when its time has come."""
        if self._since is not None and time.monotonic() - self._since >= KEPT_OPEN_S:
            self.close()

    def close(self) -> None:
        self._log.close()
        self._since = None

    def _append(self, lines: bytes) -> None:
        try:
            self._log.append(lines)
        except OSError as error:  # a full disk costs the log, and never an answer
            print(f"the request log cannot be written: {error}", file=sys.stderr, flush=True)
            return
        if self._since is None:
            self._since = time.monotonic()


def main(folder: Path) -> None:
    """Write until the gateway closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    scribe = Scribe(folder)
    while True:
        ready, _, _ = select.select([0], [], [], KEPT_OPEN_S)
        if ready:
            data = os.read(0, READ_BYTES)
            if not data:
                break
            scribe.feed(data)
        scribe.turn()
    scribe.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
