"""Fixtures that several files of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.services import dispatch, shutdown
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import until
from tests.jobs.factories_jobs import upload_flowers
from tests.jobs.gateway_house import House


@pytest.fixture
def quick(settings, monkeypatch):
    """Beats and looks of a runner come fast."""
    settings.BEAT_S = 0.2
    monkeypatch.setattr(dispatch, "LOOK_EVERY_S", 0.02)
    yield
    shutdown.worker_opens()


@pytest.fixture
def flowers(as_ben):
    return upload_flowers(as_ben)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.write_tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("w")


@pytest.fixture(scope="module")
def model(bundle: Path, sockets: Path) -> Iterator[str]:
    with make.worker(bundle, sockets / "a", version="3"):
        yield str(sockets / "a" / "s")


@pytest.fixture(scope="module")
def shared(bundle: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One gateway for all tests that do it no harm."""
    house = House(bundle)
    house.route(workers=[model])
    house.route("lab/open", workers=[], public=True, status="stopped")
    house.route("lab/slow", workers=[model], rpm=2)
    house.route("lab/dark", workers=[str(model) + ".gone"])
    house.announce()
    with make.gateway(tmp_path_factory.mktemp("var")) as process:
        house.url = process.url
        until(lambda: house.get("/t/lab/digits/v2/health/ready").status_code == 200, what="routes")
        yield house
    make.forget_routes()
