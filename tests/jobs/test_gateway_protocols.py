"""Clients of others, unchanged: tritonclient against a real gateway and a real worker; and the route for people."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import infer_body, picture, until
from tests.jobs.gateway_house import INFER, House


def bearer() -> dict[str, str]:
    """A fresh one each time: tritonclient writes headers of its own into it."""
    return {"Authorization": "Bearer ana"}


PREDICT = "/t/lab/digits/predict"


@pytest.fixture
def client(shared: House) -> Any:
    client = triton.InferenceServerClient(f"{shared.url.removeprefix('http://')}/t/lab/digits")
    yield client
    client.close()


def image_input(*bright: int, binary: bool = True) -> triton.InferInput:
    pixels = np.stack([picture(one) for one in bright])
    tensor = triton.InferInput("image", list(pixels.shape), "FP32")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def test_tritonclient_works_unchanged(client: Any) -> None:
    assert client.is_server_live(headers=bearer()) and client.is_server_ready(headers=bearer())
    assert client.is_model_ready("digits", headers=bearer())
    assert client.get_server_metadata(headers=bearer())["name"] == "tauon"
    assert client.get_model_metadata("digits", headers=bearer())["inputs"][0]["datatype"] == "FP32"
    assert client.get_model_config("digits", headers=bearer())["input"][0]["dims"] == [1, 8, 8]
    for binary in (True, False):
        found = client.infer(
            "digits", [image_input(0, 2, binary=binary)], headers=bearer(), request_id="seven"
        )
        assert found.get_response()["id"] == "seven"
        assert found.as_numpy("label").tolist() == [b"left", b"right"]
        assert found.as_numpy("probabilities").shape == (2, 3)
    versioned = client.infer("digits", [image_input(1)], model_version="3", headers=bearer())
    assert versioned.as_numpy("label").tolist() == [b"middle"]


def test_tritonclient_chooses_outputs_binary_and_likeliest_classes(client: Any) -> None:
    outputs = [triton.InferRequestedOutput("label", binary_data=False)]
    found = client.infer("digits", [image_input(1)], outputs=outputs, headers=bearer())
    assert found.get_response()["outputs"][0]["data"] == ["middle"]
    assert found.as_numpy("probabilities") is None
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
    (best,) = client.infer("digits", [image_input(1)], outputs=outputs, headers=bearer()).as_numpy(
        "probabilities"
    )
    assert best[0].decode().split(":")[1:] == ["1", "middle"]


def test_many_requests_of_tritonclient_at_once_get_their_own_answers(shared: House) -> None:
    with triton.InferenceServerClient(
        f"{shared.url.removeprefix('http://')}/t/lab/digits", concurrency=8
    ) as client:
        asked = [
            client.async_infer("digits", [image_input(turn % 3)], headers=bearer()) for turn in range(60)
        ]
        labels = [one.get_result().as_numpy("label")[0].decode() for one in asked]
    assert labels == [("left", "middle", "right")[turn % 3] for turn in range(60)]


def test_a_large_binary_tensor_is_read_whole(client: Any) -> None:
    bright = [turn % 3 for turn in range(900)]  # 230 KB: it comes in many pieces, the long way
    labels = client.infer("digits", [image_input(*bright)], headers=bearer()).as_numpy("label")
    assert labels.tolist() == [(b"left", b"middle", b"right")[one] for one in bright]


def test_tritonclient_shows_why_it_was_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="Send a token"):
        client.infer("digits", [image_input(1)])
    tensor = triton.InferInput("picture", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(picture(1)[None])
    with pytest.raises(InferenceServerException, match="no input 'picture'"):
        client.infer("digits", [tensor], headers=bearer())


def test_a_bad_binary_tensor_is_named_by_a_pointer(shared: House) -> None:
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "FP32",
                    "shape": [1, 1, 8, 8],
                    "parameters": {"binary_data_size": 8},
                }
            ]
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    refused = shared.post(content=head + b"\0" * 8, headers=headers)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/inputs/0/parameters/binary_data_size"
    assert "256 bytes" in refused.json()["detail"]


def png() -> bytes:
    content = io.BytesIO()
    Image.fromarray((picture(2)[0] * 255).astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def test_people_send_an_image_as_a_form_as_a_file_or_in_json(shared: House) -> None:
    by_form = shared.client.post(
        shared.url + PREDICT, files={"file": ("a.png", png(), "image/png")}, headers=bearer()
    )
    by_file = shared.post(path=PREDICT, content=png(), headers={"Content-Type": "image/png"})
    in_json = shared.post(path=PREDICT, body={"images": [base64.b64encode(png()).decode()]})
    pixels = shared.post(path=PREDICT, body={"row": picture(2).tolist()})
    for answer in (by_form, by_file, in_json, pixels):
        assert answer.status_code == 200, answer.text
        (prediction,) = answer.json()["predictions"]
        assert prediction["label"] == "right"
        assert prediction["probability"] == max(prediction["probabilities"].values()) > 0.9
    refused = shared.post(path=PREDICT, body={"images": ["aGk="]})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/images/0")
    assert shared.post(path=PREDICT, content=b"x", headers={"Content-Type": "text/csv"}).status_code == 415
    assert shared.get(PREDICT).status_code == 405
    assert shared.post(None, path=PREDICT, body={}).status_code == 401


def test_each_endpoint_has_an_openapi_document_of_its_own_model(shared: House) -> None:
    document = shared.get("/t/lab/digits/openapi.json").json()
    assert document["openapi"] == "3.1.0" and document["servers"] == [{"url": f"{shared.url}/t/lab/digits"}]
    assert set(document["paths"]) >= {"/predict", "/v2/models/digits/infer"}
    answer = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"][
        "schema"
    ]
    label = answer["properties"]["predictions"]["items"]["properties"]["label"]
    assert label["enum"] == ["left", "middle", "right"]
    assert "multipart/form-data" in document["paths"]["/predict"]["post"]["requestBody"]["content"]
    references = [one for one in json.dumps(document).split('"') if one.startswith("#/")]
    for reference in references:
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    assert shared.get("/t/lab/digits/openapi.json", who=None).status_code == 401
    assert shared.get("/t/lab/open/openapi.json", who=None).status_code == 200


def test_a_caller_names_its_own_deadline(bundle: Path, sockets: Path, tmp_path: Path) -> None:
    house = House(bundle)
    with make.worker(bundle, sockets / "late") as worker, make.gateway(tmp_path) as process:
        house.route(workers=[str(sockets / "late" / "s")])
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="the first answer")
        worker.send_signal(19)  # SIGSTOP: it answers nobody
        try:
            began = time.monotonic()
            refused = house.post(headers={"X-Request-Timeout-Ms": "300"})
            took_s = time.monotonic() - began
        finally:
            worker.send_signal(18)
        assert (refused.status_code, refused.json()["code"]) == (504, "deadline")
        assert 0.3 <= took_s < 10
        assert house.post(headers={"X-Request-Timeout-Ms": "soon"}).status_code == 400
        until(lambda: house.post().status_code == 200, what="an answer after the stop")


def test_more_at_once_than_the_endpoint_takes_are_refused_with_429(
    bundle: Path, sockets: Path, tmp_path: Path
) -> None:
    house = House(bundle)
    with make.worker(bundle, sockets / "cap") as worker, make.gateway(tmp_path) as process:
        house.route(workers=[str(sockets / "cap" / "s")], most_at_once=1)
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="the first answer")
        worker.send_signal(19)
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(house.post())) for _ in range(3)]
        try:
            for thread in threads:
                thread.start()
            until(lambda: len(answers) == 2, what="two refusals")  # whoever came first is inside
        finally:
            worker.send_signal(18)
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].json()["code"] == "too_many_at_once"
    assert answers[0].headers["retry-after"] == "1"


def test_slow_callers_are_cut_off(bundle: Path, model: str, tmp_path: Path) -> None:
    house = House(bundle)
    house.route(workers=[model])
    with make.gateway(tmp_path, header_ms=300, body_ms=400) as process:
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="an answer")
        for sent in (
            b"POST /t/lab",
            b"POST /t/lab/digits/v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ana\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        ):
            with socket.create_connection(("127.0.0.1", process.port), timeout=10) as caller:
                caller.sendall(sent)
                said = b""
                while part := caller.recv(65536):
                    said += part
            assert said.startswith(b"HTTP/1.1 408"), said
        assert house.post().status_code == 200


def test_pipelined_requests_are_answered_in_their_order(shared: House) -> None:
    wire = b""
    for turn in range(6):
        body = json.dumps(infer_body(turn % 3)).encode()
        wire += (
            f"POST {INFER} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ana\r\nX-Request-Id: pipe-{turn:04}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
    with socket.create_connection(("127.0.0.1", int(shared.url.rsplit(":", 1)[1])), timeout=10) as caller:
        caller.sendall(wire)
        said = b""
        while said.count(b"HTTP/1.1 200") < 6:
            part = caller.recv(65536)
            assert part, said
            said += part
    order = [line.split(b": ")[1] for line in said.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert order == [b"pipe-%04d" % turn for turn in range(6)]


def test_the_long_way_answers_as_the_short_one_does(shared: House) -> None:
    short = shared.post(body=infer_body(1))
    long = shared.post(body=infer_body(1), headers={"X-Request-Timeout-Ms": "9000"})
    assert short.json() == long.json()
    dropped = {"x-request-id", "date", "ratelimit"}
    assert {k: v for k, v in short.headers.items() if k not in dropped} == {
        k: v for k, v in long.headers.items() if k not in dropped
    }


def test_a_gateway_that_stops_answers_everything_it_was_asked(
    bundle: Path, model: str, tmp_path: Path
) -> None:
    house = House(bundle)
    house.route(workers=[model])
    statuses: list[int] = []
    broken: list[str] = []
    with make.gateway(tmp_path) as process:
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="an answer")

        def load() -> None:
            with httpx.Client(timeout=20) as client:
                while True:
                    try:
                        answer = client.post(house.url + INFER, json=infer_body(0), headers=bearer())
                    except httpx.ConnectError:
                        return  # it has stopped listening
                    except httpx.TransportError as error:
                        broken.append(repr(error))
                        return
                    statuses.append(answer.status_code)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) > 50, what="some load")
        process.process.terminate()
        for thread in threads:
            thread.join(timeout=20)
        assert process.process.wait(timeout=20) is not None
    assert set(statuses) == {200} and broken == []
