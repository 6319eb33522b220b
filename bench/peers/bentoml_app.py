"""BentoML with its adaptive batching."""

from __future__ import annotations

import bentoml
import numpy as np
from model import run, session


@bentoml.service(workers=1, traffic={"timeout": 30, "max_concurrency": 256})
class Digits:
    def __init__(self) -> None:
        self.model = session()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return run(self.model, rows.astype(np.float32))
