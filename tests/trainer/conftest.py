"""A finished two-process run on real images, made once: many tests look at what it left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.helpers import Worker, digits_run, engine


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """spec.json of a finished run: 1,797 digits, two processes, every compression method."""
    spec = digits_run(tmp_path_factory.mktemp("finished"), processes=2, epochs=8, learning_rate=2e-3)
    done = engine(spec, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    return spec


@pytest.fixture(scope="session")
def worker(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A model worker that serves the int8 digits."""
    folder = tmp_path_factory.mktemp("worker")
    running = Worker(finished.parent / "result" / "int8", folder, model_name="digits", model_version="3")
    yield running
    running.stop()
