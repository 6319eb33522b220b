"""Which worker keeps a warm parent: the one of the queue that runs attempts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobs import compute, tasks_jobs
from jobs.compute.local import LocalCompute


@pytest.fixture
def local(monkeypatch):
    """A compute of our own whose parent only notes what is asked of it."""
    made, asked = LocalCompute(), []
    monkeypatch.setattr(made.warm_parent, "warm_up", lambda: asked.append("up"))
    monkeypatch.setattr(made.warm_parent, "close", lambda: asked.append("closed"))
    monkeypatch.setattr(compute, "_local", made)
    return asked


def worker_of(*queues: str) -> SimpleNamespace:
    return SimpleNamespace(
        app=SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=set(queues))))
    )


def test_the_worker_of_runs_warms_up_and_takes_the_parent_along_when_it_ends(local):
    tasks_jobs.warm_up(worker_of("runs"))
    tasks_jobs.cool_down()
    assert local == ["up", "closed"]


def test_a_worker_that_runs_nothing_spends_no_memory_on_it(local):
    tasks_jobs.warm_up(worker_of("control"))
    assert local == []


def test_an_installation_may_do_without(local, settings):
    settings.WARM_START = False
    tasks_jobs.warm_up(worker_of("runs"))
    assert local == []
