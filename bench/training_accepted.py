"""From "201 Created" to the first step, in the product as a person starts it."""

from __future__ import annotations

import argparse
import json
import statistics
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.training_runs import first_step_s, points_run, torchrun
from tests.stack import Stack

PATIENCE_S = 120.0


def accepted(folder: Path, chosen: argparse.Namespace, metrics: dict[str, float], notes: list[str]) -> None:
    """Two processes a job; queue, placing, billing and the run folder included. Cold torchrun has none of them."""
    spec = points_run(folder / "points", epochs=3)
    cold, took = [], []
    stack = Stack().start()
    try:
        dataset = _upload(stack, spec.parent / "data" / "table.csv")
        _first_step_of_a_job(stack, dataset)  # the parent may still be importing
        for turn in range(chosen.rounds):
            one = points_run(folder / f"cold-{turn}", epochs=3)
            cold.append(first_step_s(one, torchrun("trainer", 2, ["train", str(one)])))
            took.append(_first_step_of_a_job(stack, dataset))
            print(f"cold torchrun {cold[-1]:.2f} s, accepted to first step {took[-1]:.3f} s", flush=True)
    finally:
        stack.stop()
    ratios = [b / a for a, b in zip(cold, took, strict=True)]
    metrics["accepted_to_first_step_vs_cold_torchrun"] = round(statistics.median(ratios), 4)
    metrics["accepted_to_first_step_s"] = round(statistics.median(took), 3)
    notes.append(
        f"accepted_to_first_step: a job of two processes through the API of a running installation; "
        f"median {statistics.median(took):.3f} s, cold torchrun {statistics.median(cold):.2f} s."
    )


def _first_step_of_a_job(stack: Stack, dataset: str) -> float:
    """By the job's own clock readings: when it was accepted, and when the engine told its first metric."""
    spec = {
        "name": "bench", "recipe": "tabular-classification", "dataset": dataset, "columns": {"label": "kind"},
        "hyperparameters": {"epochs": 3}, "compression": {"methods": []}, "resources": {"processes": 2},
    }  # fmt: skip
    job = _ask(stack, "/jobs", json.dumps(spec).encode(), "application/json")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        now = _ask(stack, f"/jobs/{job['id']}")
        if now["status"] in ("failed", "cancelled"):
            raise SystemExit(f"the job {now['status']}: {now['error'] or now['reason_text']}")
        if now["status"] == "succeeded":
            told = _ask(stack, f"/jobs/{job['id']}/events?limit=1000")["data"]
            first = next(event for event in told if event["kind"] == "metric")
            return (_moment(first["at"]) - _moment(job["created_at"])).total_seconds()
        time.sleep(0.2)
    raise SystemExit("the job did not end in time")


def _upload(stack: Stack, table: Path) -> str:
    edge = "bench-edge"
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="name"\r\n\r\npoints\r\n',
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="points.csv"\r\n'
        "Content-Type: text/csv\r\n\r\n" + table.read_text() + f"\r\n--{edge}--\r\n",
    ]
    answer = _ask(stack, "/datasets", "".join(parts).encode(), f"multipart/form-data; boundary={edge}")
    return str(answer["id"])


def _ask(stack: Stack, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {stack.token}"} | ({"Content-Type": kind} if kind else {})
    request = urllib.request.Request(f"{stack.url}/api/v1{path}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
