"""A pytest plugin: one embedded PostgreSQL and Redis for the whole run, in a folder of their own.

Loaded with `-p tests.services` before Django reads its settings. Workers of xdist inherit the URLs, and
pytest-django gives each its own database; each takes its own Redis database as well.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# a run that is told to end takes its servers along, as one that is interrupted does
signal.signal(signal.SIGTERM, signal.default_int_handler)

# test processes run side by side: threads of one that spin for work would take the other's core
os.environ.setdefault("OMP_NUM_THREADS", "1")

_servers = None
_folder: str | None = None

if "PYTEST_XDIST_WORKER" in os.environ:
    # worker "gw3" takes Redis database 4; the controller took 0
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) + 1
    os.environ["REDIS_URL"] = os.environ["REDIS_URL"].split("?")[0] + f"?db={number}"
elif "DATABASE_URL" not in os.environ or "REDIS_URL" not in os.environ:
    _folder = tempfile.mkdtemp(prefix="tauon-test-")
    os.environ["TAUON_VAR"] = _folder
    os.environ["TAUON_TESTING"] = "1"
    from console.embedded import Embedded

    _servers = Embedded(Path(_folder), durable=False)
    _servers.start()
    os.environ["DATABASE_URL"] = _servers.database_url
    os.environ["REDIS_URL"] = _servers.redis_url
else:
    _folder = tempfile.mkdtemp(prefix="tauon-test-")
    os.environ["TAUON_VAR"] = _folder
    os.environ["TAUON_TESTING"] = "1"


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    if _servers is not None:
        _servers.destroy()
    if _folder is not None:
        shutil.rmtree(_folder, ignore_errors=True)
