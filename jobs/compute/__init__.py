"""The place where gangs run. `backend()` is what everybody asks; a test puts its double there with `use`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.compute.base import LOST, Compute, Gang, Handle
from jobs.compute.local import LocalCompute

__all__ = ["LOST", "Compute", "Gang", "Handle", "backend", "close", "use", "warm_up"]

_local = LocalCompute()
_current: Compute = _local


def backend() -> Compute:
    """Where gangs of this installation run."""
    return _current


def warm_up() -> None:
    """For a worker that has just started: make ready what would keep its first run waiting."""
    _local.warm_up()


def close() -> None:
    """For a worker that ends."""
    _local.close()


@contextmanager
def use(other: Compute) -> Iterator[Compute]:
    """Run gangs somewhere else for a while."""
    global _current
    before, _current = _current, other
    try:
        yield other
    finally:
        _current = before
