"""Measure bundles on held-out rows: a process of its own, one thread, bundles taking turns. No torch."""

from __future__ import annotations

import gc
import json
import platform
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from trainer.bundle import Bundle, open_bundle
from trainer.contract import ONNX_FILE
from trainer.data import Columns, take, words
from trainer.scoring import summary

ROUNDS = 7
CALLS_PER_ROUND = 60
WARM_UP_CALLS = 5
BUDGET_S = 6.0  # for the timing of all bundles together; slow models get fewer calls
Answers = npt.NDArray[np.float32]
Targets = npt.NDArray[np.generic]  # numbers of classes, or the numbers to predict
_TORCH = "torch:"
_TEXT = "text:"  # columns of words are stored as UTF-8 JSON: numpy would need pickle


def save_holdout(
    path: Path,
    inputs: Columns,
    labels: Targets,
    answers: Mapping[str, Answers] | None = None,
    *,
    guess: Answers | None = None,
) -> None:
    """Store raw held-out rows, their labels, and what the torch network of each variant answered for them.

    `guess` is what somebody who knows hardly anything would answer to each row.
    """
    arrays: dict[str, Any] = {"labels": labels}
    if guess is not None:
        # one line when all rows get the same: thousands of classes times thousands of rows would be large
        same = bool((guess == guess[:1]).all())
        arrays["guess"] = guess[:1] if same else guess
    for name, column in inputs.items():
        if column.dtype == object:
            text = json.dumps([str(value) for value in column], ensure_ascii=False)
            arrays[f"in:{_TEXT}{name}"] = np.frombuffer(text.encode(), dtype=np.uint8)
        else:
            arrays[f"in:{name}"] = column
    for name, answer in (answers or {}).items():
        arrays[f"{_TORCH}{name}"] = answer
    with path.open("wb") as file:
        np.savez(file, **arrays)


def load_holdout(path: Path) -> tuple[Columns, Targets, dict[str, Answers], Answers | None]:
    with np.load(path, allow_pickle=False) as stored:
        inputs: Columns = {}
        for key in stored.files:
            if key.startswith(f"in:{_TEXT}"):
                inputs[key.removeprefix(f"in:{_TEXT}")] = words(json.loads(stored[key].tobytes()))
            elif key.startswith("in:"):
                inputs[key.removeprefix("in:")] = stored[key]
        answers = {key.removeprefix(_TORCH): stored[key] for key in stored.files if key.startswith(_TORCH)}
        guess = stored["guess"] if "guess" in stored.files else None
        return inputs, stored["labels"], answers, guess


def measure(folders: Sequence[Path], holdout: Path) -> dict[str, Any]:
    """Accuracy, size, latency and distance to torch for each bundle, as plain JSON.

    The first folder is the yardstick: what the others lost and gained is counted row by row against it.
    """
    inputs, labels, torch_answers, guess = load_holdout(holdout)
    bundles = [open_bundle(folder, threads=1) for folder in folders]
    task, transform = bundles[0].recipe.TASK, bundles[0].transform
    encoded = bundles[0].encode(inputs)
    guessed = None
    if guess is not None:
        whole = np.broadcast_to(guess, (len(labels), guess.shape[1]))
        guessed = task.scores(whole, labels, encoded, transform)
    latencies = _latencies(bundles, inputs, rows=len(labels))
    measured = []
    yardstick: npt.NDArray[np.float64] | None = None
    reference = torch_answers.get(bundles[0].description["variant"])
    for folder, bundle, times_ms in zip(folders, bundles, latencies, strict=True):
        answers = _answers(bundle, inputs, rows=len(labels))
        scores = task.scores(answers, labels, encoded, transform)
        yardstick = scores if yardstick is None else yardstick
        graph = (folder / ONNX_FILE).read_bytes()
        name = bundle.description["variant"]
        measured.append(
            {
                "name": name,
                "size_bytes": len(graph),
                "compressed_size_bytes": len(zlib.compress(graph, 6)),
                **summary(scores, yardstick, guessed),
                "figures": task.figures(answers, labels, encoded, transform),
                "holdout_rows": len(labels),
                "latency_p50_ms": round(float(np.percentile(times_ms, 50)), 5),
                "latency_p95_ms": round(float(np.percentile(times_ms, 95)), 5),
                "max_abs_difference": _distance(answers, reference),
                "export_difference": _distance(answers, torch_answers.get(name)),
            }
        )
    return {"machine": machine(), "variants": measured}


def _distance(answers: Answers, reference: Answers | None) -> float | None:
    if reference is None:
        return None
    # of probabilities as it is; a predicted price of millions may differ by more than one of cents
    return float(np.abs(answers - reference).max() / max(1.0, float(np.abs(reference).max())))


def machine() -> str:
    """The machine in one line: figures mean nothing without it."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    engine = f"ONNX Runtime {onnxruntime.__version__}"
    return f"{platform.system()} {platform.machine()}, {name}, {engine}, one thread"


def _answers(bundle: Bundle, inputs: Columns, *, rows: int) -> Answers:
    parts = []
    for start in range(0, rows, 256):
        chosen = np.arange(start, min(start + 256, rows))
        parts.append(bundle.probabilities(bundle.encode(take(inputs, chosen))))
    return np.concatenate(parts)


def _latencies(bundles: Sequence[Bundle], inputs: Columns, *, rows: int) -> list[list[float]]:
    """Milliseconds per call of one row. Taking turns, a noisy moment hits every bundle alike."""
    chosen = [np.asarray([row % rows]) for row in range(min(rows, CALLS_PER_ROUND))]
    feeds = [[bundle.feed(bundle.encode(take(inputs, row))) for row in chosen] for bundle in bundles]
    times: list[list[float]] = [[] for _ in bundles]
    began = time.perf_counter()
    for bundle, ready in zip(bundles, feeds, strict=True):
        for feed in ready[:WARM_UP_CALLS]:
            bundle.session.run(None, feed)
    one_of_each_s = (time.perf_counter() - began) / WARM_UP_CALLS
    calls = max(3, min(CALLS_PER_ROUND, int(BUDGET_S / (ROUNDS * one_of_each_s))))
    gc.disable()
    for _ in range(ROUNDS):
        for bundle, ready, into in zip(bundles, feeds, times, strict=True):
            for feed in ready[:calls]:
                began = time.perf_counter()
                bundle.session.run(None, feed)
                into.append((time.perf_counter() - began) * 1000)
    gc.enable()
    return times
