"""One model worker (`trainer serve`): start it clean, hear whether it is ready, leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
from django.conf import settings

SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes
LOG_LIMIT_BYTES = 1024 * 1024


class Process(Protocol):
    """What a worker's process is asked: a child of ours, or a fork of the zygote."""

    pid: int

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> int | None: ...


class Starter(Protocol):
    """Starts `trainer serve` for a folder; see `jobs.services.zygote`. None: it cannot right now."""

    def start(self, folder: Path, environment: Mapping[str, str]) -> Process | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a worker counted of its own requests."""

    batches: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)  # predictions
    input_rows: int = 0  # of which the inputs were counted
    inputs: Sequence[Sequence[int]] = ()  # in the bins of the bundle's profile

    @classmethod
    def from_json(cls, text: str) -> News:
        said = json.loads(text)
        inputs = said.get("inputs") or {"rows": 0, "counts": []}
        return cls(
            batches=int(said["batches"]),
            classes={str(name): int(count) for name, count in said["classes"].items()},
            input_rows=int(inputs["rows"]),
            inputs=[[int(count) for count in gauge] for gauge in inputs["counts"]],
        )

    def since(self, before: News) -> News:
        """The difference: totals only grow. A worker may give up its inputs midway; then there are none."""
        fresh = {name: count - before.classes.get(name, 0) for name, count in self.classes.items()}
        earlier = before.inputs or [[0] * len(gauge) for gauge in self.inputs]
        alike = [len(gauge) for gauge in earlier] == [len(gauge) for gauge in self.inputs]
        return News(
            batches=self.batches - before.batches,
            classes={name: count for name, count in fresh.items() if count > 0},
            input_rows=self.input_rows - before.input_rows if alike else 0,
            inputs=[
                [now - then for now, then in zip(gauge, old, strict=True)]
                for gauge, old in zip(self.inputs, earlier, strict=True)
            ]
            if alike
            else (),
        )


class Worker:
    """A running model worker in a folder of its own."""

    def __init__(
        self, folder: Path, *, model_name: str, model_version: str, starter: Starter | None = None
    ) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self._socket_folder = folder
        self._told = News()
        if len(os.fsencode(folder / "s")) >= SOCKET_PATH_LIMIT:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="tauon-"))
        self.address = str(self._socket_folder / "s")
        config = {
            "bundle": str(folder / "bundle"),
            "socket": self.address,
            "model_name": model_name,
            "model_version": model_version,
        }
        (folder / "serve.json").write_text(json.dumps(config))
        warm = starter.start(folder, _environment(folder)) if starter is not None else None
        self.process: Process = warm or _start_cold(folder)
        self.created = _created(self.process.pid)

    @property
    def handle(self) -> dict[str, Any]:
        """What another process needs to find and stop this one again."""
        return {
            "pid": self.process.pid,
            "created": self.created,
            "folder": str(self.folder),
            "socket_folder": str(self._socket_folder),
        }

    @property
    def exited(self) -> bool:
        return self.process.poll() is not None

    @property
    def ready(self) -> bool:
        return bool(self._said().get("ready"))

    def last_words(self) -> str:
        """Why it ended, for the person who published it."""
        if error := self._said().get("error"):
            return str(error)
        lines = [line for line in _tail(self.folder / "err").splitlines() if line.strip()]
        if lines:
            return lines[-1].strip()[:500]
        code = self.process.poll()
        if code is not None and code < 0:
            return f"The model worker was killed by {signal.Signals(-code).name}."
        return f"The model worker ended with code {code}."

    def news(self) -> News:
        """What it did since it was last asked (see `trainer.watch`)."""
        try:
            told = News.from_json((self.folder / "watch.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return News()
        before, self._told = self._told, told
        return told.since(before)

    def ask_to_stop(self) -> None:
        """It finishes what it has and exits."""
        if not self.exited:
            self.process.terminate()

    def kill(self) -> None:
        if not self.exited:
            self.process.kill()
        self.process.wait()

    def trim_logs(self) -> None:
        """A worker that complains for weeks must not fill the disk; both files are opened for appending."""
        for name in ("out", "err"):
            with contextlib.suppress(OSError):
                if (self.folder / name).stat().st_size > LOG_LIMIT_BYTES:
                    os.truncate(self.folder / name, 0)

    def clean(self) -> None:
        _remove(self.handle)

    def _said(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            said = json.loads((self.folder / "out").read_text().split("\n", 1)[0])
            return said if isinstance(said, dict) else {}
        return {}


def _start_cold(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
        return subprocess.Popen(
            # -P: no module is ever imported from a folder that holds a tenant's files
            [sys.executable, "-P", "-m", "trainer", "serve", str(folder / "serve.json")],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # a Ctrl-C in the terminal is for the keeper, which drains
        )


def stop_leftover(handle: Mapping[str, Any]) -> None:
    """Kill the process a dead keeper left, if it is still the same one, and remove its folders."""
    pid, created = handle.get("pid"), handle.get("created")
    if isinstance(pid, int) and created is not None and _created(pid) == created:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            process.kill()
            process.wait(timeout=5)
    _remove(handle)


def sweep(root: Path) -> None:
    """Kill workers of this very folder that no row knows of, and empty it."""
    mine = f"{root}{os.sep}"
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = process.info["cmdline"] or []
        # a fork of the zygote has its parent's command line, but works in a folder of its own
        ours = ("trainer" in command and "serve" in command) or "trainer.zygote" in command
        if ours and (process.info["cwd"] or "").startswith(mine):
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(timeout=5)
    for folder in root.glob("rep_*"):
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours: no database, no Redis, no secrets."""
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(settings.BASE_DIR),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def _created(pid: int) -> float | None:
    """A pid alone may be somebody else's by now; with the moment of its birth it is not."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _remove(handle: Mapping[str, Any]) -> None:
    for name in ("folder", "socket_folder"):
        if handle.get(name):
            shutil.rmtree(handle[name], ignore_errors=True)


def _tail(path: Path, size: int = 4096) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
