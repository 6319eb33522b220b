"""What a worker was sent and predicted, counted aside from the requests: batches, rows, classes, inputs.

A batch only leaves a reference to its answers, a request one to its rows; once a second they are counted and the
totals written to `watch.json` beside serve.json: {"batches": n, "rows": n, "classes": {"cat": n}, "inputs": {"rows":
n, "counts": [[...], ...]}}, the last in the bins of the bundle's profile (`trainer.gauges`), if it has one. Totals
only grow, and no value is ever kept.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data import Columns
from trainer.gauges import Tally

EVERY_S = 1.0
MOST_ROWS = 4096  # a second; beyond it classes are counted from those kept: a share needs no more
MOST_INPUT_ROWS = 128  # a second, of which the inputs are counted
_REQUESTS_AT_ONCE = 16  # counted in one go: the requests that wait meanwhile must not notice


class Watch:
    """Of one worker."""

    def __init__(
        self,
        path: Path | None = None,
        classes: Sequence[str] = (),
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = path
        self._classes = tuple(classes)
        self._kept: list[npt.NDArray[np.float32]] = []
        self._kept_rows = 0
        self._batches = self._rows = 0
        self._counts = np.zeros(len(self._classes), dtype=np.int64)
        self._written = 0
        self._inputs = Tally(profile["gauges"]) if profile else None
        self._asked: list[Columns] = []
        self._asked_rows = 0 if profile else MOST_INPUT_ROWS

    def saw(self, answers: npt.NDArray[Any]) -> None:
        """One batch was answered. Called for every batch: it must cost next to nothing."""
        self._batches += 1
        self._rows += len(answers)
        if self._kept_rows < MOST_ROWS:
            self._kept.append(answers)
            self._kept_rows += len(answers)

    def asked(self, columns: Columns, rows: int) -> None:
        """A request was read. Called for every one of them, too."""
        if self._asked_rows < MOST_INPUT_ROWS:
            self._asked_rows += rows
            self._asked.append(columns)

    async def write_on(self) -> None:
        """Count and write, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            while self._count_inputs():
                await asyncio.sleep(0)
            self.write()

    def write(self) -> None:
        """Write the totals if there is news. A full disk costs the numbers, not the answers."""
        while self._count_inputs():
            pass
        if self._path is None or self._batches == self._written:
            return
        self._written = self._batches
        kept, self._kept, self._kept_rows = self._kept, [], 0
        for answers in kept:
            if answers.ndim == 2 and answers.shape[1] == len(self._classes) > 1:
                self._counts += np.bincount(answers.argmax(axis=1), minlength=len(self._classes))
        told: dict[str, Any] = {
            "batches": self._batches,
            "rows": self._rows,
            "classes": {
                name: int(count) for name, count in zip(self._classes, self._counts, strict=True) if count
            },
        }
        if self._inputs is not None:
            told["inputs"] = {"rows": self._inputs.rows, "counts": self._inputs.as_lists()}
        hidden = self._path.with_suffix(".new")
        try:
            hidden.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
            hidden.replace(self._path)
        except OSError:
            return

    def _count_inputs(self) -> bool:
        """Count the next few requests; False if there was none."""
        if self._inputs is None or not self._asked:
            return False
        some, self._asked = self._asked[:_REQUESTS_AT_ONCE], self._asked[_REQUESTS_AT_ONCE:]
        if not self._asked:
            self._asked_rows = 0
        try:
            joined = some[0]
            if len(some) > 1:
                joined = {name: np.concatenate([one[name] for one in some]) for name in some[0]}
            # of one large request its first rows are enough
            self._inputs.add({name: column[:MOST_INPUT_ROWS] for name, column in joined.items()})
        except Exception as error:  # no fitting profile, no memory: costs these counts, not the others
            print(f"inputs are not counted any more: {error!r}", file=sys.stderr, flush=True)
            self._inputs, self._asked, self._asked_rows = None, [], MOST_INPUT_ROWS
        return True
