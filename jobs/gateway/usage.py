"""The write-ahead log of answered requests: one line before each answer, shipped to billing by somebody else.

A segment is born under a hidden name, locked, and only then shown under its own: whoever finds `gw-*.jsonl`
unlocked knows that nobody writes it any more (rotated, or its gateway is dead).
"""

from __future__ import annotations

import fcntl
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from jobs.gateway.frames import Answer
from jobs.gateway.snapshot import Route, Token


def line(
    call_id: str, route: Route, token: Token | None, answer: Answer, us: int, *, at: str | None = None
) -> str:
    """What one answered request is counted by. Times are UTC."""
    at = at or datetime.now(UTC).isoformat(timespec="milliseconds")
    who = token.id if token is not None else ""
    # every value is of our own making and of plain letters: no escaping is needed, and none is paid for
    return (
        f'{{"id":"{call_id}","at":"{at}","tenant":"{route.tenant_id}","endpoint":"{route.id}",'
        f'"version":"{route.model_version}","token":"{who}","rows":{answer.rows},"tokens":{answer.tokens},'
        f'"us":{us},"compute_us":{answer.compute_us},"status":200}}\n'
    )


class UsageLog:
    """One writer's segments, `<prefix>-<boot>-<n>.jsonl`; those of a gateway begin with `gw`."""

    def __init__(self, folder: Path, *, segment_bytes: int, prefix: str = "gw") -> None:
        self.boot = secrets.token_hex(6)
        self._prefix = prefix
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._number = 0
        self._size = 0
        self._file: int | None = None

    def append(self, line: bytes) -> None:
        """Write whole lines, or raise OSError and leave none of them."""
        if self._file is None or self._size + len(line) > self._segment_bytes:
            self._open_next()
        assert self._file is not None
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self._size)  # a full disk: half a line must not stay
            raise OSError(28, "the disk is full")
        self._size += written

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_next(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        name = f"{self._prefix}-{self.boot}-{self._number}.jsonl"
        hidden = self._folder / f".{name}"
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(self._folder / name)
        except OSError:
            os.close(file)
            raise
        self.close()
        self._file, self._size = file, 0
