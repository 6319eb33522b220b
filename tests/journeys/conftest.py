"""One running installation for all journeys of a worker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    running = Stack()
    try:
        yield running.start()
    finally:
        running.stop()
        shutil.rmtree(running.folder, ignore_errors=True)
