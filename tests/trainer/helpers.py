"""Run folders with real data, the engine as a real process, and a small client for its model worker."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from trainer.contract import (
    EVENTS_FILE,
    MANIFEST_FILE,
    RESULT_DIR,
    CompressionSpec,
    DataSpec,
    Event,
    EventKind,
    HyperParameters,
    Manifest,
    Recipe,
    Resources,
    RunSpec,
    read_events,
)

HOME = Path(__file__).resolve().parents[2]


def write_run(
    folder: Path,
    recipe: Recipe,
    data: DataSpec,
    *,
    processes: int = 1,
    compression: CompressionSpec | None = None,
    **hyper: Any,
) -> Path:
    """Write spec.json; returns its path."""
    spec = RunSpec(
        run_id="run-1",
        recipe=recipe,
        data=data,
        hyperparameters=HyperParameters(**hyper),
        resources=Resources(processes=processes),
        compression=compression or CompressionSpec(max_accuracy_drop=0.02),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "spec.json"
    path.write_text(spec.to_json())
    return path


def digits_run(folder: Path, *, images: int | None = None, **options: Any) -> Path:
    """scikit-learn's handwritten digits as PNG files, in one folder a digit."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images[:images], digits.target[:images], strict=True)):
        path = folder / "data" / "images" / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(path)
    return write_run(folder, Recipe.IMAGE, DataSpec(path="data/images", format="images"), **options)


def table_run(folder: Path, header: list[str], rows: list[list[Any]], label: str, **options: Any) -> Path:
    path = folder / "data" / "table.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    data = DataSpec(path="data/table.csv", format="csv", label=label)
    return write_run(folder, Recipe.TABULAR, data, **options)


def text_run(folder: Path, rows: list[tuple[str, str]], **options: Any) -> Path:
    path = folder / "data" / "table.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "topic": topic}, ensure_ascii=False) for text, topic in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = DataSpec(path="data/table.jsonl", format="jsonl", label="topic", text="text")
    return write_run(folder, Recipe.TEXT, data, **options)


def command(spec: Path, name: str = "run", *, processes: int = 1) -> list[str]:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    return [*start, "trainer", name, str(spec)]


def environment() -> dict[str, str]:
    """What the engine really gets: a path, and nothing of the web's settings."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {
        **keep,
        "PYTHONPATH": str(HOME),
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def engine(
    spec: Path, name: str = "run", *, processes: int = 1, timeout_s: float = 90
) -> subprocess.CompletedProcess[str]:
    """Start the engine as the web does, and wait."""
    return subprocess.run(
        command(spec, name, processes=processes),
        env=environment(),
        cwd=spec.parent,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def start_engine(spec: Path, name: str = "run", *, processes: int = 1) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(spec, name, processes=processes),
        env=environment(),
        cwd=spec.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def events(spec: Path, kind: EventKind | None = None) -> list[Event]:
    found, _ = read_events(spec.parent / EVENTS_FILE)
    return [event for event in found if kind is None or event.kind is kind]


def phases(spec: Path) -> list[str]:
    return [event.data["phase"] for event in events(spec, EventKind.STATE)]


def losses(spec: Path) -> dict[int, float]:
    """Training loss by step; a step done again after a restart must say the same again."""
    found: dict[int, float] = {}
    for event in events(spec, EventKind.METRIC):
        if event.data["name"] == "train/loss":
            step, value = event.data["step"], event.data["value"]
            assert found.setdefault(step, value) == value, f"step {step} changed when it was done again"
    return found


def manifest(spec: Path) -> Manifest:
    return Manifest.from_json((spec.parent / RESULT_DIR / MANIFEST_FILE).read_text())


def wait_for(condition: Any, *, timeout_s: float = 40, what: str = "condition") -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what}: nothing after {timeout_s} s")


def children(pid: int) -> list[int]:
    """Every process below `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    below, found = {pid}, []
    while below:
        below = {child for child, parent in parents.items() if parent in below}
        found += below
    return found


def rank_of(pid: int) -> int | None:
    try:
        said = Path(f"/proc/{pid}/environ").read_bytes().decode()
    except OSError:
        return None
    match = re.search(r"(?:^|\0)RANK=(\d+)", said)
    return int(match[1]) if match else None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class WorkerClient:
    """Speaks the frames of trainer.serve over a plain blocking socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(path))

    def send(self, number: int, payload: bytes) -> None:
        self.socket.sendall(struct.pack(">II", len(payload) + 4, number) + payload)

    def receive(self) -> tuple[int, int, int, dict[str, Any]]:
        """Request id, status, rows, body."""
        number, status, rows, body = self.receive_bytes()
        return number, status, rows, json.loads(body)

    def receive_bytes(self) -> tuple[int, int, int, bytes]:
        length, number, status, rows, _tokens, _us = struct.unpack(">IIHIII", self._exactly(22))
        return number, status, rows, self._exactly(length - 18)

    def ask(self, request: Any, number: int = 7) -> tuple[int, int, dict[str, Any]]:
        payload = request if isinstance(request, bytes) else json.dumps(request).encode()
        self.send(number, payload)
        answered, status, rows, body = self.receive()
        assert answered == number
        return status, rows, body

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self.socket.recv(size - len(parts))
            if not part:
                raise ConnectionError("the worker closed the connection")
            parts += part
        return parts


class Worker:
    """A real `python -m trainer serve` process."""

    def __init__(self, bundle: Path, folder: Path, **settings: Any) -> None:
        self.socket = folder / "w.sock"
        config = folder / "serve.json"
        config.write_text(json.dumps({"bundle": str(bundle), "socket": str(self.socket), **settings}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer", "serve", str(config)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = json.loads(self.process.stdout.readline())

    def client(self) -> WorkerClient:
        return WorkerClient(self.socket)

    def stop(self, *, told: bool = False) -> int:
        """Its exit code. `told`: it was sent SIGTERM already; a second one could meet it past its handlers."""
        if not told:
            self.process.terminate()
        code = self.process.wait(timeout=30)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code
