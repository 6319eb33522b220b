"""Measure serving: python -m bench.serving [--part speed|cold|idle|kills ...] [--seconds 3] [--rounds 3].

speed   ours and other servers, the same model, each in turn on the same core, 1, 16 and 64 connections of wrk on
        another; every server's answers are checked before it is timed. `--peers` chooses; each has a venv of its
        own under var/bench/serving, made on first use.
cold    a request is waiting; how long from the start of a worker to its answer
idle    memory that a thousand endpoints without a worker take of a gateway
kills   random kill -9 of gateway and workers under load; is every answered request counted once?
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import kills
from bench.report import machine, write_result
from bench.stack import HOME, PATH, TOKEN, free_port, infer_body, post, row, stack, until, write_model
from trainer.bundle import open_bundle

VENVS = HOME / "var" / "bench" / "serving"
PEERS = HOME / "bench" / "peers"
CONNECTIONS = (1, 16, 64)
SERVER_CPU, LOAD_CPU = "0", "1"
MODEL_SERVERS = ("mlserver", "kserve", "bentoml", "ray")
_WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
wrk.body = [==[%s]==]
done = function(summary, latency)
  io.write(string.format("\\n{\\"requests\\":%%d,\\"us\\":%%d,\\"bad\\":%%d,\\"p50\\":%%f,\\"p99\\":%%f}\\n",
    summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server: what its venv holds, how it starts, where it listens."""

    name: str
    venv: str
    packages: tuple[str, ...]
    command: tuple[str, ...]  # `{port}` and `{folder}` are filled in
    path: str = "/predict"
    body: str = "v2"


_BARE = ("uvicorn[standard]==0.54.0", "orjson", "fastapi")
ALL = (
    Peer("bare", "bare", _BARE, ("python", "bare.py")),
    Peer("fastapi", "bare", _BARE, ("python", "fastapi_direct.py")),
    Peer("litserve", "litserve", ("litserve==0.2.19",), ("python", "litserve_app.py")),
    Peer("mlserver", "mlserver", ("mlserver==1.7.1",), ("mlserver", "start", "{folder}"),
         "/v2/models/digits/infer"),
    Peer("kserve", "kserve", ("kserve==0.21.0",),
         ("python", "kserve_app.py", "--http_port", "{port}", "--enable_grpc", "false"), "/v2/models/digits/infer"),
    Peer("bentoml", "bentoml", ("bentoml==1.4.39",),
         ("bentoml", "serve", "bentoml_app:Digits", "--port", "{port}"), "/predict", "bento"),
    Peer("ray", "ray", ("ray[serve]==2.60.0",), ("python", "ray_app.py")),
)  # fmt: skip


@dataclass(slots=True)
class Cell:
    """What one server did at one number of connections, round by round."""

    rps: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def prepare(peer: Peer) -> Path | None:
    """The folder of the peer's programs, made if need be; None where it cannot be installed."""
    venv = VENVS / peer.venv
    if not (venv / ".ok").exists():
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        wanted = ["onnxruntime==1.31.1", "numpy<3", *peer.packages]
        pip = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *wanted]
        if subprocess.run(pip, check=False).returncode:
            return None
        (venv / ".ok").touch()
    return venv / "bin"


@contextlib.contextmanager
def peer_up(peer: Peer, programs: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start a peer on the server's core; yields its address."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="tauon-peer-"))
    model = write_model(folder / "bundle") / "model.onnx"
    if peer.name == "mlserver":
        settings = {
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 0,
        }
        (folder / "settings.json").write_text(json.dumps({**settings, "debug": False}))
        named = {"name": "digits", "implementation": "mlserver_app.Digits"}
        (folder / "model-settings.json").write_text(json.dumps(named))
        for file in ("mlserver_app.py", "model.py"):
            shutil.copy(PEERS / file, folder / file)
    values = {"port": port, "folder": str(folder)}
    command = [one.format(**values) for one in peer.command]
    environment = {
        "PATH": f"{programs}:{os.defpath}", "HOME": str(folder), "TMPDIR": str(folder), "BENCH_PORT": str(port),
        "BENCH_MODEL": str(model), "PYTHONPATH": str(PEERS), "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder),
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", SERVER_CPU, str(programs / command[0]), *command[1:]],
            cwd=PEERS, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}{peer.path}"

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{peer.name} ended: {(folder / 'log').read_text()[-600:]}")
            return post(url, body_for(peer.body, 0))[0] == 200

        until(answers, 120, f"the start of {peer.name}")
        yield url, psutil.Process(process.pid)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a peer with all it started; some let their children live in sessions of their own."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.kill()
    process.wait()


def body_for(kind: str, seed: int) -> dict[str, Any]:
    return {"rows": [row(seed)]} if kind == "bento" else infer_body(seed)


def check(url: str, kind: str, expected: np.ndarray[Any, Any]) -> None:
    """The first twenty rows must be answered as ONNX Runtime answers them here."""
    for seed, right in enumerate(expected):
        status, said = post(url, body_for(kind, seed))
        if status != 200:
            raise RuntimeError(f"status {status}: {said[:200]!r}")
        answer = json.loads(said)
        got = answer[0] if isinstance(answer, list) else answer["outputs"][0]["data"]
        if not np.allclose(got, right, atol=1e-4):
            raise RuntimeError(f"a wrong answer to row {seed}: {got}")


def load(
    url: str, kind: str, connections: int, seconds: int, processes: list[psutil.Process]
) -> dict[str, float]:
    """One run of wrk; CPU microseconds of the server for each request beside it."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK % (TOKEN, json.dumps(body_for(kind, 3))))
        script.flush()
        command = [
            "taskset",
            "-c",
            LOAD_CPU,
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "10s",
        ]
        before = cpu_s(processes)
        ran = subprocess.run([*command, "-s", script.name, url], capture_output=True, text=True, check=True)
        used = cpu_s(processes) - before
    try:
        found: dict[str, float] = json.loads(ran.stdout.strip().splitlines()[-1])
    except ValueError:
        raise RuntimeError(f"wrk said {ran.stdout[-300:]!r} {ran.stderr[-300:]!r}") from None
    if not found["requests"]:
        raise RuntimeError(f"no request was answered in {seconds} s")
    if found["bad"]:
        raise RuntimeError(f"{found['bad']:.0f} of {found['requests']:.0f} requests failed")
    return {**found, "cpu_us": used * 1e6 / max(1, found["requests"])}


def cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system
    return total


def measure_speed(names: list[str], rounds: int, seconds: int) -> tuple[dict[str, float], list[str]]:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed. On Debian: apt-get install wrk")
    notes: list[str] = []
    peers = []
    for peer in ALL:
        if peer.name in names:
            programs = prepare(peer)
            if programs is None:
                notes.append(f"{peer.name}: could not be installed here, so it was not measured")
            else:
                peers.append((peer, programs))
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(write_model(Path(folder)))
        rows = np.asarray([row(seed) for seed in range(20)], dtype=np.float32)
        expected = bundle.probabilities(rows.reshape(-1, 1, 8, 8))
    cells: dict[tuple[str, int], Cell] = {}
    for turn in range(rounds):
        order: list[Any] = [None, *peers]
        order = order[turn % len(order) :] + order[: turn % len(order)]  # nobody is always first
        for one in order:
            name = "tauon" if one is None else one[0].name
            try:
                _measure_one(name, one, cells, expected, seconds)
            except (RuntimeError, TimeoutError, subprocess.CalledProcessError) as error:
                notes.append(f"{name}: not measured in round {turn + 1}, {str(error)[:300]}")
                print(notes[-1], file=sys.stderr)
    return _compare(cells), [*notes, *_table(cells)]


def _measure_one(
    name: str, one: Any, cells: dict[tuple[str, int], Cell], expected: Any, seconds: int
) -> None:
    if one is None:
        with stack(cpus=SERVER_CPU) as ours:
            everybody = [psutil.Process(one.pid) for key, one in ours.processes.items()]
            _measure_cells(name, ours.url + PATH, "v2", everybody, cells, expected, seconds)
    else:
        with peer_up(*one) as (url, process):
            _measure_cells(name, url, one[0].body, [process], cells, expected, seconds)


def _measure_cells(
    name: str, url: str, kind: str, processes: list[psutil.Process], cells: Any, expected: Any, seconds: int
) -> None:
    check(url, kind, expected)
    load(url, kind, 16, 1, processes)  # warm
    for connections in CONNECTIONS:
        found = load(url, kind, connections, seconds, processes)
        cell = cells.setdefault((name, connections), Cell())
        cell.rps.append(found["requests"] * 1e6 / found["us"])
        cell.p50_ms.append(found["p50"] / 1000)
        cell.p99_ms.append(found["p99"] / 1000)
        cell.cpu_us.append(found["cpu_us"])
        print(f"{name:10} {connections:3} {cell.rps[-1]:9.0f}/s p50 {cell.p50_ms[-1]:8.3f} p99 {cell.p99_ms[-1]:8.3f} ms "
              f"cpu {cell.cpu_us[-1]:6.0f} us", flush=True)  # fmt: skip


def _compare(cells: dict[tuple[str, int], Cell]) -> dict[str, float]:
    """The keys of the issue: medians over rounds, ratios within a round."""
    ours = cells.get(("tauon", 64))
    if ours is None:
        return {}
    found = {"rps64": statistics.median(ours.rps), "p99_ms_64": statistics.median(ours.p99_ms)}

    def ratio(name: str) -> float | None:
        other = cells.get((name, 64))
        return statistics.median(a / b for a, b in zip(ours.rps, other.rps, strict=False)) if other else None

    for name, key in (("litserve", "litserve"), ("fastapi", "fastapi"), ("bare", "bare_asgi")):
        if (value := ratio(name)) is not None:
            found[f"rps64_vs_{key}"] = value
    servers = [value for name in MODEL_SERVERS if (value := ratio(name)) is not None]
    if servers:
        found["rps64_vs_best_model_server"] = min(servers)
    tails = [
        statistics.median(cell.p99_ms) for (name, c), cell in cells.items() if c == 64 and name != "tauon"
    ]
    if tails:
        found["best_peer_p99_ms_64"] = min(tails)
    one, bare = cells.get(("tauon", 1)), cells.get(("bare", 1))
    if one and bare:
        added = statistics.median(a - b for a, b in zip(one.p50_ms, bare.p50_ms, strict=False))
        found["added_p50_ms_1"] = added
    return found


def _table(cells: dict[tuple[str, int], Cell]) -> list[str]:
    """A note a server: what it did at each number of connections."""
    notes = []
    for name in dict.fromkeys(name for name, _ in cells):
        parts = [
            f"{c} connections {statistics.median(cell.rps):.0f}/s, p50 {statistics.median(cell.p50_ms):.2f}, "
            f"p99 {statistics.median(cell.p99_ms):.2f} ms, {statistics.median(cell.cpu_us):.0f} us CPU"
            for c in CONNECTIONS
            if (cell := cells.get((name, c)))
        ]
        notes.append(f"{name}: {'; '.join(parts)} (medians of {len(cells[name, CONNECTIONS[0]].rps)} rounds)")
    return notes


def measure_cold(tries: int) -> tuple[dict[str, float], list[str]]:
    """A request is parked at the gateway; then its worker is forked from the warm parent, or started anew."""
    took: dict[str, list[float]] = {"forked": [], "fresh": []}
    with stack() as ours:
        ours.start_zygote()
        for number in range(2 * tries):
            way, name = ("fresh", "forked")[number % 2], f"cold{number}"
            ours.announce(sleeps=True)
            answers: list[tuple[int, bytes]] = []
            asking = threading.Thread(target=_ask_into, args=(answers, ours.url + PATH))
            asking.start()
            time.sleep(0.2)  # it is parked
            began = time.perf_counter()
            pid = ours.fork_worker(name) if way == "forked" else ours.start_worker(name, wait=False).pid
            until((ours.folder / name / "s").exists, 60, "the worker's socket")
            ours.announce(name, sleeps=True)  # as the keeper does when a worker says that it is ready
            asking.join()
            if answers[0][0] == 200:
                took[way].append(time.perf_counter() - began)
            os.kill(pid, signal.SIGKILL)
    if not took["forked"]:
        raise SystemExit("no cold request was answered")
    value, worst = statistics.median(took["forked"]), max(took["forked"])
    fresh = f"; a fresh process takes {statistics.median(took['fresh']):.2f} s" if took["fresh"] else ""
    text = f"cold_start_s: forked from the warm parent, the request waiting; median of {len(took['forked'])}"
    return {"cold_start_s": value}, [f"{text}, worst {worst:.2f} s{fresh}"]


def _ask_into(answers: list[tuple[int, bytes]], url: str) -> None:
    answers.append(post(url, infer_body(1)))


def measure_idle() -> tuple[dict[str, float], list[str]]:
    def memory(endpoints: int) -> float:
        with stack(endpoints=endpoints) as ours:
            time.sleep(1)
            return psutil.Process(ours.processes["gateway"].pid).memory_full_info().uss / 2**20

    few, many = memory(1), memory(1001)
    text = "idle_1000_endpoints_mib: what a gateway grows by with 1,000 endpoints at zero; none has a process"
    return {"idle_1000_endpoints_mib": many - few}, [text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", action="append", choices=["speed", "cold", "idle", "kills"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--peers", default=",".join(peer.name for peer in ALL))
    parser.add_argument("--dry", action="store_true", help="print, write no result")
    given = parser.parse_args()
    parts = given.part or ["speed", "cold", "idle", "kills"]
    where = machine()
    for part in parts:
        if part == "speed":
            metrics, notes = measure_speed(given.peers.split(","), given.rounds, given.seconds)
        elif part == "cold":
            metrics, notes = measure_cold(9)
        elif part == "idle":
            metrics, notes = measure_idle()
        else:
            metrics, notes = kills.measure(given.kills)
        if given.dry:
            print(json.dumps({"metrics": metrics, "notes": notes}, indent=1))
        else:
            write_result("serving", metrics, notes, where)


if __name__ == "__main__":
    main()
