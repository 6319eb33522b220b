"""What tests of endpoints need: a tiny real model, a real worker, a real gateway, a real keeper."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from django.conf import settings
from django.db import connection
from onnx import TensorProto, helper, numpy_helper

from billing import seed
from jobs import routes, storage
from jobs.gateway.config import ROUTES_CHANNEL, ROUTES_KEY, VERSION_KEY
from jobs.models import Artifact, Dataset, DatasetVersion, Endpoint, Job, Model, ModelVersion
from jobs.services.endpoints import publish_endpoint
from tenants.actor import Actor
from tenants.models import Tenant
from trainer.bundle import write_bundle
from trainer.contract import Recipe

CLASSES = ("left", "middle", "right")
SIDE = 8


def write_tiny_bundle(folder: Path, *, lead: int = 0, fragile: bool = False) -> Path:
    """A model that names the brightest of three pixels; `lead` shifts the names, to tell two apart.

    A `fragile` one loads and answers one row, and fails on two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = np.zeros((SIDE * SIDE, 3), dtype=np.float32)
    for pixel in range(3):
        weights[pixel, (pixel + lead) % 3] = 8.0
    flat = helper.make_node("Flatten", ["image"], ["flat"], axis=1)
    constants = [numpy_helper.from_array(weights, "weights")]
    if fragile:
        flat = helper.make_node("Reshape", ["image", "one_row"], ["flat"])
        constants.append(numpy_helper.from_array(np.array([1, SIDE * SIDE], dtype=np.int64), "one_row"))
    graph = helper.make_graph(
        [
            flat,
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    write_bundle(
        folder,
        recipe_name=Recipe.IMAGE,
        variant="original",
        classes=CLASSES,
        transform={"side": SIDE, "channels": 1, "mean": [0.0], "scale": [1.0]},
        sample={"image": picture(1)[None]},
    )
    return folder


def picture(bright: int) -> Any:
    """One image [1, 8, 8] with one bright pixel in its first row."""
    pixels = np.zeros((1, SIDE, SIDE), dtype=np.float32)
    pixels[0, 0, bright] = 1.0
    return pixels


def infer_body(*bright: int, **more: Any) -> dict[str, Any]:
    data = [float(value) for one in bright for value in picture(one).ravel()]
    shape = [len(bright), 1, SIDE, SIDE]
    return {"inputs": [{"name": "image", "datatype": "FP32", "shape": shape, "data": data}], **more}


def labels_of(answer: httpx.Response) -> list[str]:
    return next(one["data"] for one in answer.json()["outputs"] if one["name"] == "label")


# -- rows ----------------------------------------------------------------------------------------------------


def make_model_version(
    tenant: Tenant,
    *,
    name: str = "digits",
    number: int = 1,
    bundle: Path | None = None,
    interface: dict[str, Any] | None = None,
) -> ModelVersion:
    """A registered version; with `bundle` its files are stored as a run would have left them."""
    dataset, _ = Dataset.objects.get_or_create(tenant=tenant, name="pixels")
    data, _ = DatasetVersion.objects.get_or_create(
        tenant=tenant, dataset=dataset, number=1,
        defaults={"format": "images", "file_name": "a.zip", "storage_key": f"t/{dataset.public_id}",
                  "sha256": "0" * 64, "size_bytes": 1, "row_count": 3},
    )  # fmt: skip
    job = Job.objects.create(
        tenant=tenant, name=name, dataset_version=data, recipe=Recipe.IMAGE, spec={}, processes=1,
        max_time_s=60, estimate_low=0, estimate_high=0,
    )  # fmt: skip
    model, _ = Model.objects.get_or_create(tenant=tenant, name=name, defaults={"recipe": Recipe.IMAGE})
    version = ModelVersion.objects.create(
        tenant=tenant, model=model, number=number, variant="original", job=job, dataset_version=data,
        is_chosen=True, passed_gate=True, accuracy=0.97, size_bytes=2000, latency_p50_ms=0.1,
        latency_p95_ms=0.2, report={}, manifest={},
        interface=interface or (json.loads((bundle / "bundle.json").read_text()) if bundle else {}),
    )  # fmt: skip
    for file in ("bundle.json", "model.onnx"):
        key = f"tenants/{tenant.public_id}/models/{version.public_id}/{file}"
        content = (bundle / file).read_bytes() if bundle else b"x"
        stored = storage.put(tenant, key, [content])
        Artifact.objects.create(
            tenant=tenant, version=version, name=file, storage_key=key, sha256=stored.sha256,
            size_bytes=stored.size_bytes,
        )  # fmt: skip
    return version


def make_endpoint(actor: Actor, version: ModelVersion | None = None, **fields: Any) -> Endpoint:
    """An endpoint through the real door. It starts as soon as a keeper sees it."""
    seed.seed()
    assert actor.tenant is not None
    version = version or make_model_version(actor.tenant)
    return publish_endpoint(actor, name=fields.pop("name", "Digits"), version=version, **fields)


# -- processes -----------------------------------------------------------------------------------------------


def until(holds: Callable[[], Any], timeout_s: float = 15.0, what: str = "it") -> Any:
    """Wait for something to become true; fails with a sentence."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {timeout_s:g} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gateway:
    """A gateway process of its own on a free port."""

    def __init__(self, var: Path, **limits: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(settings.BASE_DIR),
            "REDIS_URL": settings.REDIS_URL,
            "TAUON_VAR": str(var),
            **{f"TAUON_GATEWAY_{name.upper()}": str(value) for name, value in limits.items()},
        }
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "uvicorn", "jobs.gateway:app", "--port", str(self.port),
                "--http", "jobs.gateway.http:Protocol", "--loop", "uvloop", "--no-access-log",
                "--log-level", "warning",
            ],
            env=environment,
            cwd=settings.BASE_DIR,
        )  # fmt: skip
        until(self._answers, what="the start of the gateway")

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the gateway ended by itself"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/v2/health/live").status_code == 200
        return False

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def gateway(var: Path, **limits: int) -> Iterator[Gateway]:
    process = Gateway(var, **limits)
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def worker(bundle: Path, folder: Path, *, version: str = "1") -> Iterator[subprocess.Popen]:
    """`trainer serve` on `folder`/s, stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"bundle": str(bundle), "socket": str(folder / "s")}
    config |= {"model_name": "digits", "model_version": version}
    (folder / "serve.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "serve", str(folder / "serve.json")],
        stdout=subprocess.PIPE, cwd=settings.BASE_DIR,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["ready"]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def keeper(var: Path) -> Iterator[subprocess.Popen]:
    """`manage.py run_replicas` on this test's database, told to leave at the end."""
    named = connection.settings_dict
    url = settings.DATABASES["default"]
    host = str(url["HOST"]).replace("/", "%2F")
    login = f"{url['USER']}:{url['PASSWORD']}"
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(settings.BASE_DIR),
        "DATABASE_URL": f"postgresql://{login}@{host}/{named['NAME']}",
        "REDIS_URL": settings.REDIS_URL,
        "TAUON_VAR": str(var),
        "TAUON_MASTER_KEY": settings.MASTER_KEY,
        "TAUON_SECRET_KEY": settings.SECRET_KEY,
        "TAUON_TESTING": "1",
        "TAUON_BEAT_S": "1",
    }
    command = [sys.executable, "manage.py", "run_replicas"]
    process = subprocess.Popen(command, env=environment, cwd=settings.BASE_DIR)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Caller:
    """Somebody with a token at the gateway."""

    def __init__(self, url: str, token: str, endpoint: Endpoint) -> None:
        self.url = f"{url}/t/{endpoint.tenant.slug}/{endpoint.slug}/v2/models/{endpoint.slug}/infer"
        self.headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(timeout=40)

    def __call__(self, *bright: int, **headers: str) -> httpx.Response:
        body = infer_body(*(bright or (0,)))
        return self.client.post(self.url, json=body, headers={**self.headers, **headers})


# -- routes --------------------------------------------------------------------------------------------------


def announce(endpoints: dict[str, Any], tokens: dict[str, Any]) -> None:
    """Put a snapshot of a test's own making where gateways look."""
    version = time.time_ns()
    store = routes.redis()
    store.set(ROUTES_KEY, json.dumps({"version": version, "endpoints": endpoints, "tokens": tokens}))
    store.set(VERSION_KEY, version)
    store.publish(ROUTES_CHANNEL, version)


def forget_routes() -> None:
    routes.redis().delete(ROUTES_KEY, VERSION_KEY, routes.DIGEST_KEY)


def wait_for_routes(gateway_url: str, timeout_s: float = 5.0) -> None:
    """Until the gateway has loaded the newest snapshot: a probe endpoint of ours is known there."""
    until(
        lambda: httpx.get(f"{gateway_url}/v2/health/ready").status_code == 200, timeout_s, "loading of routes"
    )
