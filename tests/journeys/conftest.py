"""One running installation for all journeys of a worker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.stack import Stack


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    if "PYTEST_XDIST_WORKER" in os.environ:  # two installations on two cores starve each other
        grouped = [
            item.nodeid for item in request.session.items if "stack" in getattr(item, "fixturenames", ())
        ]
        assert all(nodeid.endswith("@stack") for nodeid in grouped), "run with --dist loadgroup"
    running = Stack()
    try:
        yield running.start()
    finally:
        running.stop()
        shutil.rmtree(running.folder, ignore_errors=True)
