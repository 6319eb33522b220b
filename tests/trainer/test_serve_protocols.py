"""What a worker speaks besides plain v2 JSON: binary tensors, rows for humans, deadlines, and being told to forget."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.helpers import WorkerClient
from tests.trainer.test_serve import picture, request, table  # noqa: F401
from trainer import plain, protocol
from trainer.bundle import Bundle, WrongInput, open_bundle
from trainer.data import words


def envelope(letter: bytes, body: bytes, head: bytes = b"", within_ms: int = 0) -> bytes:
    return struct.pack(">ccII", b"\x01", letter, within_ms, len(head)) + head + body


def binary(tensor: dict[str, Any], raw: bytes, **more: Any) -> tuple[bytes, int]:
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}], **more}).encode()
    return head + raw, len(head)


@pytest.fixture
def client(worker: Any) -> Any:
    client = worker.client()
    yield client
    client.close()


@pytest.fixture
def digits(finished: Path) -> Bundle:
    return open_bundle(finished.parent / "result" / "int8")


@pytest.mark.slow
def test_a_binary_tensor_gets_the_answer_of_its_json_twin(client: WorkerClient) -> None:
    pixels = picture(1, rows=3)
    _, _, twin = client.ask(request(pixels))
    tensor = {"name": "image", "datatype": "FP32", "shape": [3, 1, 8, 8]}
    body, json_bytes = binary(tensor, pixels.tobytes(), parameters={"binary_data_output": True})
    client.send(5, envelope(b"B", body, str(json_bytes).encode()))
    number, status, rows, answered = client.receive_bytes()
    assert (number, status, rows) == (5, 206, 3)
    (end,) = struct.unpack(">I", answered[:4])
    said, tail = json.loads(answered[4 : 4 + end]), answered[4 + end :]
    numbers, labels = said["outputs"]
    size = numbers["parameters"]["binary_data_size"]
    got = np.frombuffer(tail[:size], dtype="<f4")
    assert np.allclose(got, twin["outputs"][0]["data"], atol=1e-6)
    assert labels["parameters"]["binary_data_size"] == len(tail) - size
    first = twin["outputs"][1]["data"][0].encode()
    assert tail[size:].startswith(struct.pack("<I", len(first)) + first)


@pytest.mark.parametrize(
    ("tensor", "raw", "pointer"),
    [
        ({"datatype": "FP32"}, b"\0" * 255, "/inputs/0/parameters/binary_data_size"),
        ({"datatype": "FP64"}, b"\0" * 256, "/inputs/0/parameters/binary_data_size"),
        ({"datatype": "BYTES"}, b"\0" * 256, "/inputs/0/datatype"),
        ({"datatype": "FP32", "data": [0.0]}, b"\0" * 256, "/inputs/0/data"),
        ({"datatype": "FP32"}, b"\0" * 252 + b"\0\0\x80\x7f", "/inputs/0/data/63"),
    ],
)
def test_a_bad_binary_tensor_is_named(
    digits: Bundle, tensor: dict[str, Any], raw: bytes, pointer: str
) -> None:
    body, json_bytes = binary({"name": "image", "shape": [1, 1, 8, 8], **tensor}, raw)
    with pytest.raises(WrongInput) as refused:
        protocol.parse_request(body, digits, json_bytes=json_bytes)
    assert refused.value.pointer == pointer


def test_bytes_that_nobody_claims_and_a_wrong_length_of_json_are_refused(digits: Bundle) -> None:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}
    body, json_bytes = binary(tensor, b"\0" * 256)
    with pytest.raises(WrongInput, match="4 bytes follow"):
        protocol.parse_request(body + b"\0\0\0\0", digits, json_bytes=json_bytes)
    for wrong in (0, -1, len(body) + 1, json_bytes - 1):
        with pytest.raises((protocol.NotARequest, WrongInput)):
            protocol.parse_request(body, digits, json_bytes=wrong)


@pytest.mark.parametrize("kind", ["<f8", "<f2", "<i4", "<u1"])
def test_other_number_types_are_read_as_fp32(digits: Bundle, kind: str) -> None:
    names = {"<f8": "FP64", "<f2": "FP16", "<i4": "INT32", "<u1": "UINT8"}
    pixels = np.eye(8, dtype=kind)
    body, json_bytes = binary(
        {"name": "image", "datatype": names[kind], "shape": [1, 1, 8, 8]}, pixels.tobytes()
    )
    encoded = protocol.parse_request(body, digits, json_bytes=json_bytes).encoded
    assert encoded.dtype == np.float32 and np.array_equal(encoded[0, 0], np.eye(8))


def test_the_quick_way_of_reading_a_request_agrees_with_the_careful_one(digits: Bundle) -> None:
    body = json.dumps(request(picture(4, rows=2), id="x")).encode()
    quick = protocol._quick(body, digits)
    careful = protocol.parse_request(body, digits, json_bytes=len(body))
    assert quick is not None and quick.outputs == careful.outputs
    assert (quick.id, quick.rows) == (careful.id, careful.rows) == ("x", 2)
    assert np.array_equal(quick.encoded, careful.encoded)


def test_the_likeliest_classes_and_a_deadline_can_be_asked_for(digits: Bundle) -> None:
    body = json.dumps(
        request(picture(1), outputs=[{"name": "probabilities", "parameters": {"classification": 2}}],
                parameters={"timeout": 2_000_000})
    ).encode()  # fmt: skip
    asked = protocol.parse_request(body, digits)
    assert asked.within_s == 2
    results = protocol.Results(digits.probabilities(asked.encoded))
    said, _ = protocol.answer(asked, results, 0, digits, name="digits", version="1")
    (output,) = json.loads(said)["outputs"]
    value, index, label = output["data"][0].split(":")
    assert output["shape"] == [1, 2] and int(index) == results.top[0] and label == digits.classes[int(index)]
    assert float(value) == pytest.approx(max(results.scores[0]), abs=1e-6)


def png(seed: int) -> bytes:
    pixels = (picture(seed)[0, 0] * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.mark.slow
def test_people_send_images_in_four_ways_and_get_one_answer(client: WorkerClient) -> None:
    coded = base64.b64encode(png(1)).decode()
    boundary = b'--sep\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    bodies = [
        (json.dumps({"image": coded}).encode(), b"application/json"),
        (json.dumps({"images": [f"data:image/png;base64,{coded}"]}).encode(), b"application/json"),
        (png(1), b"image/png"),
        (boundary + png(1) + b"\r\n--sep--\r\n", b"multipart/form-data; boundary=sep"),
    ]
    answers = []
    for body, kind in bodies:
        status, rows, said = client.ask(envelope(b"P", body, kind))
        assert (status, rows) == (200, 1), said
        answers.append(said)
    assert all(answer == answers[0] for answer in answers)
    (prediction,) = answers[0]["predictions"]
    assert prediction["probabilities"][prediction["label"]] == prediction["probability"]
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "kind", "status", "pointer"),
    [
        (b"{", b"application/json", 400, None),
        (b"{}", b"application/json", 400, None),
        (b'{"images": []}', b"application/json", 422, "/images"),
        (b'{"images": ["not base64!"]}', b"application/json", 422, "/images/0"),
        (b'{"images": ["aGk="]}', b"application/json", 422, "/images/0"),
        (b'{"rows": [[1, 2]]}', b"application/json", 422, "/rows/0"),
        (b"nothing", b"image/png", 422, "/body"),
        (b"nothing", b"multipart/form-data; boundary=a", 400, None),
    ],
)
def test_what_people_get_wrong_is_named(
    client: WorkerClient, body: bytes, kind: bytes, status: int, pointer: str | None
) -> None:
    answered, _, said = client.ask(envelope(b"P", body, kind))
    assert (answered, said.get("pointer")) == (status, pointer), said
    assert client.ask(request(picture(2)))[0] == 200


@pytest.mark.slow
def test_rows_of_a_table_are_objects_and_a_column_left_out_is_missing(table: Path) -> None:  # noqa: F811
    bundle = open_bundle(table)
    body = json.dumps({"rows": [{"age": 50, "city": "Rome"}, {"city": "Oslo"}]}).encode()
    asked = plain.parse_plain(body, bundle, kind="application/json")
    assert (
        asked.encoded.tolist()
        == bundle.encode(
            {"age": np.asarray([50, np.nan], dtype=np.float32), "city": words(["Rome", "Oslo"])}
        ).tolist()
    )
    for row, pointer in (
        ({"agee": 1}, "/rows/0/agee"),
        ({"age": "x"}, "/rows/0/age"),
        ({}, "/rows/0"),
        (3, "/rows/0"),
    ):
        with pytest.raises(WrongInput) as refused:
            plain.parse_plain(json.dumps({"rows": [row]}).encode(), bundle, kind="application/json")
        assert refused.value.pointer == pointer


def test_work_whose_deadline_has_passed_or_whose_caller_has_gone_is_never_run() -> None:
    import asyncio
    import time

    from trainer import serve

    class Slow:
        classes = ("a", "b")
        inputs = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
        description = {"recipe": "tabular"}
        is_plain = True
        seen: list[float] = []

        def encode(self, columns: dict[str, Any]) -> Any:
            return columns["x"].reshape(-1, 1)

        def probabilities(self, encoded: Any) -> Any:
            self.seen += encoded[:, 0].tolist()
            time.sleep(0.2)
            return np.concatenate([encoded, 1 - encoded], axis=1)

    class Caller:
        answers: dict[int, int] = {}

        def answer(self, number: int, status: int, rows: int, body: bytes, *, us: int = 0) -> None:
            self.answers[number] = status

    async def go() -> None:
        model, caller = Slow(), Caller()
        worker = serve.Worker(model, name="m", version="1", usual_s=1.0, max_waiting_rows=3)  # type: ignore[arg-type]
        for number, within_ms in enumerate([0, 50, 5000, 0]):
            data = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [float(number)]}]}
            item = worker.take(number, envelope(b"J", json.dumps(data).encode(), b"", within_ms), caller)  # type: ignore[arg-type]
            if number == 0:
                await asyncio.sleep(0.01)
        assert item is not None
        item.connection = None  # its caller has gone
        assert worker.take(9, json.dumps(data).encode(), caller) is None  # type: ignore[arg-type]
        assert caller.answers == {9: 503}  # three rows wait: no more are taken
        await worker.drained()
        assert model.seen == [0.0, 2.0]
        assert caller.answers == {9: 503, 0: 200, 1: 504, 2: 200}

    asyncio.run(go())
