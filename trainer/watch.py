"""What a worker predicted, counted aside from the requests: batches, rows, and how often each class won.

The batch run only keeps a reference to its answers; once a second they are counted and the totals written to
`watch.json` beside serve.json: {"batches": n, "rows": n, "classes": {"cat": n}}. Totals only grow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

EVERY_S = 1.0
MOST_ROWS = 4096  # a second; beyond it classes are counted from those kept: a share needs no more


class Watch:
    """Of one worker."""

    def __init__(self, path: Path | None = None, classes: Sequence[str] = ()) -> None:
        self._path = path
        self._classes = tuple(classes)
        self._kept: list[npt.NDArray[np.float32]] = []
        self._kept_rows = 0
        self._batches = self._rows = 0
        self._counts = np.zeros(len(self._classes), dtype=np.int64)
        self._written = 0

    def saw(self, answers: npt.NDArray[Any]) -> None:
        """One batch was answered. Called for every batch: it must cost next to nothing."""
        self._batches += 1
        self._rows += len(answers)
        if self._kept_rows < MOST_ROWS:
            self._kept.append(answers)
            self._kept_rows += len(answers)

    async def write_on(self) -> None:
        """Count and write, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.write()

    def write(self) -> None:
        """Write the totals if there is news. A full disk costs the numbers, not the answers."""
        if self._path is None or self._batches == self._written:
            return
        self._written = self._batches
        kept, self._kept, self._kept_rows = self._kept, [], 0
        for answers in kept:
            if answers.ndim == 2 and answers.shape[1] == len(self._classes) > 1:
                self._counts += np.bincount(answers.argmax(axis=1), minlength=len(self._classes))
        told = {
            "batches": self._batches,
            "rows": self._rows,
            "classes": {
                name: int(count) for name, count in zip(self._classes, self._counts, strict=True) if count
            },
        }
        hidden = self._path.with_suffix(".new")
        try:
            hidden.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
            hidden.replace(self._path)
        except OSError:
            return
