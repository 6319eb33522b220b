"""How a running attempt learns that its worker is being shut down.

Celery's pool children are not told of a warm shutdown, and a supervisor may send SIGTERM to the whole process
group. Both end here: one byte of memory shared with the parent, made before it forks, and a handler for
SIGTERM.
"""

from __future__ import annotations

import mmap
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_shared = mmap.mmap(-1, 1)
_asked = threading.Event()


def worker_closes(**_: Any) -> None:
    """For Celery's `worker_shutting_down`, which only the parent hears."""
    _shared[0] = 1


def worker_opens(**_: Any) -> None:
    """A fresh start, for `worker_init` and tests."""
    _shared[0] = 0
    _asked.clear()


def is_asked() -> bool:
    return _shared[0] == 1 or _asked.is_set()


@contextmanager
def listening() -> Iterator[None]:
    """Note SIGTERM instead of dying of it, where we are the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: _asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
