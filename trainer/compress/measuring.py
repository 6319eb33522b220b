"""Measure what was written: every file in a process that knows nothing but it, and PyTorch against ONNX Runtime."""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import trainer
from trainer.bundle import open_bundle
from trainer.contract import Eager
from trainer.data import Indices, batches
from trainer.export import Shipped
from trainer.prepare import Prepared, Run
from trainer.recipes.outcomes import answers_of

ROUNDS, CALLS, BUDGET_S = 7, 30, 3.0


def probabilities(
    network: nn.Module, prepared: Prepared, rows: Indices, device: torch.device
) -> np.ndarray[Any, Any]:
    """What torch itself answers for these rows: the yardstick for every exported file."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for some in batches(rows, 256):
            x, _ = prepared.tensors(some, device)
            parts.append(answers_of(network, network(x).float()).cpu().numpy())
    return np.concatenate(parts)


def measure_files(run: Run, folders: list[Path], holdout: Path) -> dict[str, Any]:
    """Run `python -m trainer evaluate` on what was written: what counts is what a stranger can load."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    home = str(Path(trainer.__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "trainer", "evaluate", *map(str, folders), str(holdout)]
    out, err = holdout.with_name("measured.json"), holdout.with_name("measure.log")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
        try:
            while process.poll() is None:
                run.control.stop_here()
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        said = err.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"measuring failed ({process.returncode}): {said[-1] if said else 'no message'}")
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def time_eager(run: Run, prepared: Prepared, network: nn.Module, original: Path) -> Eager:
    """Milliseconds for one row in PyTorch and, in turns with it, in ONNX Runtime: one thread each, on the CPU.

    The other variants are timed against the original's file in a process of their own; this ties both together.
    """
    bundle = open_bundle(original, threads=1)
    shipped = Shipped(copy.deepcopy(network).cpu()).eval()
    held = prepared.split.holdout
    arrays = [
        prepared.recipe.batch(prepared.encoded[held[at : at + 1]]) for at in range(min(CALLS, len(held)))
    ]
    tensors = [torch.from_numpy(array) for array in arrays]
    feeds = [{prepared.recipe.GRAPH_INPUT: array} for array in arrays]
    eager_ms: list[float] = []
    file_ms: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        with torch.inference_mode():
            for turn in range(ROUNDS + 1):
                run.control.stop_here()
                eager = [_milliseconds(shipped, tensor) for tensor in tensors]
                files = [_milliseconds(bundle.session.run, None, feed) for feed in feeds]
                if turn:  # the first warms up
                    eager_ms += eager
                    file_ms += files
                    if time.perf_counter() - began > BUDGET_S:
                        break
    finally:
        torch.set_num_threads(threads)
    return Eager(
        latency_p50_ms=round(statistics.median(eager_ms), 5),
        original_p50_ms=round(statistics.median(file_ms), 5),
    )


def _milliseconds(call: Callable[..., Any], *given: Any) -> float:
    began = time.perf_counter()
    call(*given)
    return 1000 * (time.perf_counter() - began)
