"""One running installation for all journeys of a worker; a failure brings along what it said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.stack import Stack

SHOWN = 8000  # characters of the log, the newest


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    running = Stack()
    try:
        yield running.start()
    finally:
        running.stop()
        shutil.rmtree(running.folder, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """The reason of a failed journey is rarely in the test: it is in the log of the installation."""
    outcome = yield
    report = outcome.get_result()
    running = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(running, Stack):
        ended = running.process.poll() if running.process else None
        state = "still running" if ended is None else f"ended with {ended}"
        report.sections.append((f"log of the installation, {state}", running.log()[-SHOWN:]))
