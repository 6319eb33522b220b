"""The model worker: right answers to the right caller, clear refusals, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.helpers import Worker, WorkerClient, wait_for
from trainer import protocol
from trainer.bundle import open_bundle, write_bundle
from trainer.contract import Recipe
from trainer.data import words
from trainer.export import export_network
from trainer.recipes import networks, tabular
from trainer.serve import ROW_CAP, predict

pytestmark = pytest.mark.slow


def picture(seed: int, rows: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((rows, 1, 8, 8), dtype=np.float32)


def request(pixels: np.ndarray[Any, Any], **more: Any) -> dict[str, Any]:
    data = pixels.astype(float).ravel().tolist()
    return {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": list(pixels.shape), "data": data}],
        **more,
    }


@pytest.fixture
def client(worker: Worker) -> Any:
    client = worker.client()
    yield client
    client.close()


def test_it_says_when_it_is_ready_and_only_its_owner_may_use_the_socket(worker: Worker) -> None:
    assert worker.said == {"ready": True, "socket": str(worker.socket)}
    assert worker.socket.stat().st_mode & 0o777 == 0o600


def test_ready_answers_the_metadata_of_the_model(client: WorkerClient) -> None:
    status, rows, body = client.ask(b"ready")
    assert (status, rows) == (200, 0)
    assert body["name"] == "digits"
    assert body["versions"] == ["3"]
    assert body["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert [item["name"] for item in body["outputs"]] == ["probabilities", "label"]


def test_an_answer_is_what_the_bundle_says_in_this_process(client: WorkerClient, finished: Path) -> None:
    pixels = picture(1, rows=3)
    status, rows, body = client.ask(request(pixels, id="abc"))
    assert (status, rows) == (200, 3)
    assert (body["id"], body["model_name"], body["model_version"]) == ("abc", "digits", "3")
    expected, labels = predict(finished.parent / "result" / "int8", {"image": pixels})
    probabilities, label = body["outputs"]
    assert probabilities["shape"] == [3, 10]
    assert np.allclose(np.reshape(probabilities["data"], (3, 10)), expected, atol=1e-6)
    assert label == {"name": "label", "datatype": "BYTES", "shape": [3], "data": labels}


def test_only_the_outputs_that_were_asked_for_are_sent(client: WorkerClient) -> None:
    _, _, body = client.ask(request(picture(1), outputs=[{"name": "label"}]))
    assert [item["name"] for item in body["outputs"]] == ["label"]


def test_nested_data_and_whole_numbers_are_read_too(client: WorkerClient) -> None:
    nested = request(np.zeros((1, 1, 8, 8)))
    nested["inputs"][0].update(data=np.zeros((1, 1, 8, 8), dtype=int).tolist(), datatype="INT64")
    assert client.ask(nested)[2]["outputs"] == client.ask(request(np.zeros((1, 1, 8, 8))))[2]["outputs"]


def changed(**changes: Any) -> dict[str, Any]:
    asked = request(picture(1))
    asked["inputs"][0].update(changes)
    return asked


@pytest.mark.parametrize(
    ("payload", "status", "pointer"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"\xff\xfe", 400, None),
        (b"[" * 100_000, 400, None),
        ({"inputs": {}}, 400, None),
        ({"inputs": []}, 422, "/inputs"),
        ({"inputs": [3]}, 422, "/inputs/0"),
        (changed(name="picture"), 422, "/inputs/0/name"),
        (changed(name=["image"]), 422, "/inputs/0/name"),
        (changed(datatype="BYTES"), 422, "/inputs/0/datatype"),
        (changed(shape=[1, 1, 8, 9]), 422, "/inputs/0/shape"),
        (changed(shape=[0, 1, 8, 8]), 422, "/inputs/0/shape"),
        (changed(shape=[-1, 1, 8, 8]), 422, "/inputs/0/shape"),
        (changed(shape="8"), 422, "/inputs/0/shape"),
        (changed(shape=[10**9, 1, 8, 8]), 422, "/inputs/0/shape"),
        (changed(data=[0.0] * 63), 422, "/inputs/0/data"),
        (changed(data="0"), 422, "/inputs/0/data"),
        (changed(data=[0.0] * 63 + ["x"]), 422, "/inputs/0/data/63"),
        (changed(data=[0.0] * 63 + [None]), 422, "/inputs/0/data/63"),
        (changed(data=[True] * 64), 422, "/inputs/0/data/0"),
        (changed(data=[0.0] * 62 + [float("nan"), 0.0]), 422, "/inputs/0/data/62"),
        (changed(data=[1e39] * 64), 422, "/inputs/0/data/0"),
        (changed(data=[10**400] * 64), 422, "/inputs/0/data"),
        (request(picture(1), outputs=[{"name": "mood"}]), 422, "/outputs/0/name"),
        (request(picture(1), id=7), 422, "/id"),
    ],
)
def test_a_wrong_request_is_refused_with_a_pointer_and_the_next_one_is_answered(
    client: WorkerClient, payload: Any, status: int, pointer: str | None
) -> None:
    answered, rows, body = client.ask(payload)
    assert (answered, rows) == (status, 0)
    assert body["error"]
    assert body.get("pointer") == pointer
    assert client.ask(request(picture(2)))[0] == 200


def test_a_frame_that_is_too_long_ends_only_its_own_connection(worker: Worker) -> None:
    bad, good = worker.client(), worker.client()
    bad.socket.sendall(struct.pack(">II", 2**31, 1))
    assert bad.receive()[1] == 400
    with pytest.raises(ConnectionError):
        bad.receive()
    assert good.ask(request(picture(2)))[0] == 200
    bad.close()
    good.close()


def test_many_in_flight_get_their_own_answers_and_bad_rows_fail_alone(worker: Worker, finished: Path) -> None:
    bundle = open_bundle(finished.parent / "result" / "int8")
    expected = {seed: predict(bundle, {"image": picture(seed)})[0] for seed in range(60)}
    failures: list[str] = []

    def talk(offset: int) -> None:
        client = worker.client()
        for seed in range(offset, 60, 4):
            payload = b'{"inputs": "bad"}' if seed % 7 == 3 else json.dumps(request(picture(seed))).encode()
            client.send(seed, payload)
        for _ in range(offset, 60, 4):
            seed, status, _, body = client.receive()
            if seed % 7 == 3:
                if status != 400:
                    failures.append(f"{seed} should be refused, got {status}")
            elif not np.allclose(body["outputs"][0]["data"], expected[seed][0], atol=1e-5):
                failures.append(f"{seed} got another one's answer")
        client.close()

    threads = [threading.Thread(target=talk, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_client_that_hangs_up_does_not_disturb_the_others(worker: Worker) -> None:
    for _ in range(5):
        rude = worker.client()
        rude.send(1, json.dumps(request(picture(1))).encode())
        rude.close()
    polite = worker.client()
    assert polite.ask(request(picture(1)))[0] == 200
    polite.close()


def test_requests_that_wait_are_joined_up_to_the_row_cap_and_a_failing_batch_is_taken_apart() -> None:
    """In this process, with a bundle whose graph counts its batches and chokes on one row."""
    import asyncio

    from trainer import serve

    class Counting:
        classes = ("a", "b")
        inputs = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
        description = {"recipe": "tabular-classification"}
        is_plain = True
        batches: list[int] = []

        def encode(self, columns: dict[str, Any]) -> np.ndarray[Any, Any]:
            return columns["x"].reshape(-1, 1)

        def probabilities(self, encoded: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            self.batches.append(len(encoded))
            time.sleep(0.02)
            if (encoded == 13).any():
                raise RuntimeError("unlucky")
            return np.stack([encoded[:, 0], 1 - encoded[:, 0]], axis=1)

    class Caller:
        answers: dict[int, tuple[int, int, bytes]] = {}

        def answer(self, number: int, status: int, rows: int, body: bytes, *, us: int = 0) -> None:
            assert number not in self.answers
            self.answers[number] = (status, rows, body)

    async def go() -> None:
        model, caller = Counting(), Caller()
        worker = serve.Worker(model, name="m", version="1", usual_s=1.0)  # type: ignore[arg-type]
        for number in range(100):
            value = 13.0 if number == 50 else number / 100
            body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [value]}]}
            worker.take(number, json.dumps(body).encode(), caller)  # type: ignore[arg-type]
            if number == 0:
                await asyncio.sleep(0)  # idle: the first one must not wait for company
        await worker.drained()
        assert model.batches[0] == 1
        assert max(model.batches) == ROW_CAP
        assert caller.answers[50][0] == 500
        good = [caller.answers[number] for number in range(100) if number != 50]
        assert {(status, rows) for status, rows, _ in good} == {(200, 1)}
        assert json.loads(caller.answers[20][2])["outputs"][0]["data"][0] == pytest.approx(0.2)

    asyncio.run(go())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A bundle of an untrained table network: its answers do not matter here, its inputs do."""
    transform = {
        "columns": [
            {"name": "age", "kind": "number", "mean": 40.0, "scale": 10.0},
            {"name": "city", "kind": "words", "words": ["Oslo", "Rome"]},
        ]
    }
    import torch

    network = networks.build(Recipe.TABULAR, transform, 2, seed=1)
    examples = [torch.randn(rows, tabular.width(transform)) for rows in (2, 3)]
    folder = tmp_path / "table"
    export_network(network, examples, folder, graph_input=tabular.GRAPH_INPUT)
    sample = {"age": np.asarray([np.nan], dtype=np.float32), "city": words(["Rome"])}
    write_bundle(
        folder,
        recipe_name=Recipe.TABULAR,
        variant="original",
        classes=("no", "yes"),
        transform=transform,
        sample=sample,
    )
    return folder


def columns(age: list[Any], city: list[Any]) -> bytes:
    inputs = [
        {"name": "city", "datatype": "BYTES", "shape": [len(city)], "data": city},
        {"name": "age", "datatype": "FP32", "shape": [len(age), 1], "data": [[value] for value in age]},
    ]
    return json.dumps({"inputs": inputs}).encode()


def test_a_table_takes_raw_columns_in_any_order_with_values_missing(table: Path) -> None:
    bundle = open_bundle(table)
    whole = protocol.parse_request(columns([40, None], ["Rome", None]), bundle)
    assert whole.encoded.tolist() == [[0, 0, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0]]
    one = protocol.parse_request(columns([50], ["Atlantis"]), bundle)
    assert one.encoded.tolist() == [[1, 0, 0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (columns([1, 2], ["Rome"]), "/inputs/1/shape"),
        (columns(["old"], ["Rome"]), "/inputs/1/data/0"),
        (columns([1], [5]), "/inputs/0/data/0"),
        (json.dumps({"inputs": json.loads(columns([1], ["Rome"]))["inputs"][:1]}).encode(), "/inputs"),
        (json.dumps({"inputs": json.loads(columns([1], ["Rome"]))["inputs"] * 2}).encode(), "/inputs/2/name"),
    ],
)
def test_a_table_names_the_column_at_fault(table: Path, body: bytes, pointer: str) -> None:
    with pytest.raises(protocol.WrongInput) as refused:
        protocol.parse_request(body, open_bundle(table))
    assert refused.value.pointer == pointer


def test_sigterm_finishes_what_is_in_flight_and_exits_with_zero(table: Path, tmp_path: Path) -> None:
    worker = Worker(table, tmp_path)
    client = worker.client()
    for number in range(50):
        client.send(number, columns([float(number)] * 8, ["Rome"] * 8))
    first = client.receive()
    assert first[1] == 200
    worker.process.send_signal(signal.SIGTERM)
    statuses = [client.receive()[1] for _ in range(49)]
    assert set(statuses) <= {200, 503}
    assert worker.stop(told=True) == 0
    assert not worker.socket.exists()
    client.close()


def test_a_changed_file_is_refused_at_the_start_with_a_reason(table: Path, tmp_path: Path) -> None:
    graph = table / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    worker = Worker(table, tmp_path)
    assert worker.said["ready"] is False
    assert "does not match its checksum" in worker.said["error"]
    assert worker.process.wait(timeout=10) == 65
    worker.stop()


def test_a_socket_left_by_a_killed_worker_is_replaced(table: Path, tmp_path: Path) -> None:
    first = Worker(table, tmp_path)
    first.process.kill()
    first.process.wait()
    assert first.socket.exists()
    first.stop()
    second = Worker(table, tmp_path)
    assert second.said["ready"] is True
    assert second.client().ask(b"ready")[0] == 200
    assert second.stop() == 0


def test_a_worker_dies_with_its_parent(table: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.trainer.helpers import alive, environment

    config = tmp_path / "serve.json"
    config.write_text(json.dumps({"bundle": str(table), "socket": str(tmp_path / "w.sock")}))
    starter = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'trainer', 'serve', {str(config)!r}])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starter], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for(lambda: (tmp_path / "w.sock").exists(), what="the socket")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not alive(pid), timeout_s=5, what="the worker to be gone")
