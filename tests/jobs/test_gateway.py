"""The gateway as a real process before a real worker; the routes are of the test's own making."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import pytest
from django.conf import settings

from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import infer_body, labels_of, until
from tests.jobs.gateway_house import INFER, House, token


def test_it_answers_right_and_in_the_words_of_the_protocol(shared: House) -> None:
    answer = shared.post(body=infer_body(0, 2, 1, id="mine"))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["model_name"], said["model_version"], said["id"]) == ("digits", "3", "mine")
    assert labels_of(answer) == ["left", "right", "middle"]
    probabilities = next(one for one in said["outputs"] if one["name"] == "probabilities")
    assert probabilities["shape"] == [3, 3]
    assert probabilities["data"][0] > 0.9
    assert shared.post(path=INFER.replace("/infer", "/versions/3/infer")).status_code == 200


def test_metadata_and_health_speak_the_protocol(shared: House) -> None:
    base = "/t/lab/digits/v2"
    assert shared.get(base).json()["name"] == "tauon"
    assert shared.get(f"{base}/health/live").json() == {"live": True}
    assert shared.get(f"{base}/health/ready").status_code == 200
    assert shared.get(f"{base}/models/digits/ready").json()["ready"] is True
    said = shared.get(f"{base}/models/digits").json()
    assert (said["name"], said["versions"]) == ("digits", ["3"])
    assert said["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert shared.get(f"{base}/models/digits/versions/3").json() == said
    assert shared.get(f"{base}/models/digits/versions/2").status_code == 404
    assert shared.get("/v2/health/ready", who=None).status_code == 200


def test_without_a_token_it_asks_for_one(shared: House) -> None:
    for who in (None, "nobody-knows-this", "late"):
        refused = shared.post(who)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith('Bearer realm="tauon"')
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "not_signed_in"
    # whether an endpoint exists is not told to somebody without a token
    assert shared.post(None, path="/t/lab/nothing/v2/models/nothing/infer").status_code == 401
    assert shared.post(None, headers={"Authorization": "Basic YTpi"}).status_code == 401


def test_colleagues_without_the_right_get_403_and_strangers_404(shared: House) -> None:
    refused = shared.post("viewer")
    assert refused.status_code == 403
    assert 'scope="endpoints:invoke"' in refused.headers["www-authenticate"]
    assert shared.post("cy").status_code == 404
    assert shared.post("cy").json()["detail"] == shared.post(path="/t/lab/nope/v2").json()["detail"]
    assert shared.post("guest").status_code == 200


def test_a_public_endpoint_needs_no_token_but_refuses_a_wrong_one(shared: House) -> None:
    assert shared.get("/t/lab/open/v2", who=None).status_code == 200
    assert shared.get("/t/lab/open/v2", who="nobody-knows-this").status_code == 401


def test_wrong_methods_and_addresses_are_named(shared: House) -> None:
    refused = shared.get(INFER)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert shared.post(path="/t/lab/digits/v2/models/digits", body={}).headers["allow"] == "GET, HEAD"
    for path in ("/", "/t/lab", "/t/lab/digits", "/t/lab/digits/v2/models/other/infer", "/t/lab/digits/v3"):
        assert shared.post(path=path).status_code == 404
    assert shared.client.options(shared.url + INFER).status_code == 401  # no CORS
    assert "access-control-allow-origin" not in shared.post(headers={"Origin": "https://example.org"}).headers


def test_bodies_that_are_not_json_are_refused_before_they_are_read(shared: House) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/png"):
        refused = shared.post(content=b"{}", headers={"Content-Type": kind})
        assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    gzip = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert shared.post(content=b"x", headers=gzip).status_code == 415


def test_a_large_body_is_refused_with_and_without_a_stated_length(shared: House) -> None:
    kind = {"Content-Type": "application/json"}
    assert shared.post(content=b" " * 1_100_000, headers=kind).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 65536

    streamed = shared.post(content=pieces(), headers=kind)
    assert (streamed.status_code, streamed.json()["code"]) == (413, "too_large")
    assert shared.post().status_code == 200


def test_a_bad_tensor_is_named_by_a_pointer(shared: House) -> None:
    short = infer_body(0)
    short["inputs"][0]["data"] = [1.0]
    refused = shared.post(body=short)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/inputs/0/data"
    named = infer_body(0)
    named["inputs"][0]["name"] = "picture"
    assert shared.post(body=named).json()["errors"][0]["pointer"] == "/inputs/0/name"
    broken = shared.post(content=b"{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, broken.json()["code"]) == (400, "not_a_request")


def test_the_rate_is_kept_and_told(shared: House) -> None:
    path = "/t/lab/slow/v2/models/slow/infer"
    first = shared.post(path=path)
    assert first.headers["ratelimit-policy"] == '"endpoint";q=2;w=60'
    assert first.headers["ratelimit"].startswith('"endpoint";r=1;t=')
    shared.post(path=path)
    refused = shared.post(path=path)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    # another caller has a bucket of its own, and so has another endpoint
    assert shared.post("ana").status_code == 200


def test_without_a_ready_worker_it_says_when_to_come_back(shared: House) -> None:
    refused = shared.post(path="/t/lab/dark/v2/models/dark/infer")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    stopped = shared.post(None, path="/t/lab/open/v2/models/open/infer")
    assert (stopped.status_code, stopped.json()["code"]) == (503, "stopped")
    assert shared.get("/t/lab/dark/v2/health/ready").status_code == 503


def test_request_ids_go_in_and_out(shared: House) -> None:
    assert shared.post(headers={"X-Request-Id": "mine-12345"}).headers["x-request-id"] == "mine-12345"
    assert shared.post(headers={"X-Request-Id": '"}bad'}).headers["x-request-id"].startswith("req_")
    refused = shared.post(None, headers={"X-Request-Id": "mine-12345"})
    assert refused.json()["request_id"] == "mine-12345"


def test_a_revoked_token_is_refused_within_a_second(shared: House) -> None:
    shared.announce(leaver=token(id="tok_leaver"))
    until(lambda: shared.post("leaver").status_code == 200, 3, "the new token")
    began = time.monotonic()
    shared.announce(leaver=None)
    until(lambda: shared.post("leaver").status_code == 401, 3, "the revocation")
    assert time.monotonic() - began < 1


def test_lost_keys_in_redis_leave_the_last_routes_in_force(shared: House) -> None:
    make.forget_routes()
    time.sleep(2.3)  # longer than a poll
    assert shared.post().status_code == 200
    shared.announce()


def test_a_worker_that_hangs_means_504(bundle: Path, sockets: Path, tmp_path: Path) -> None:
    house = House(bundle)
    with make.worker(bundle, sockets / "h") as worker, make.gateway(tmp_path, deadline_ms=400) as process:
        house.route(workers=[str(sockets / "h" / "s")])
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="the first answer")
        os.kill(worker.pid, signal.SIGSTOP)
        refused = house.post()
        os.kill(worker.pid, signal.SIGCONT)
        assert (refused.status_code, refused.json()["code"]) == (504, "deadline")
        until(lambda: house.post().status_code == 200, what="an answer after the stop")


def test_a_full_queue_is_refused_at_once(bundle: Path, sockets: Path, tmp_path: Path) -> None:
    house = House(bundle)
    limits = {"deadline_ms": 20_000, "max_in_flight": 1}
    with make.worker(bundle, sockets / "q") as worker, make.gateway(tmp_path, **limits) as process:
        house.route(workers=[str(sockets / "q" / "s")])
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="the first answer")
        os.kill(worker.pid, signal.SIGSTOP)
        with ThreadPoolExecutor(2) as pool:  # whichever comes first waits; the other one is refused
            both = [pool.submit(house.post) for _ in range(2)]
            refused = next(as_completed(both)).result()
            os.kill(worker.pid, signal.SIGCONT)
        assert refused.status_code == 503
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("queue_full", "1")
        assert [one.result().status_code for one in both].count(503) == 1


def test_a_request_whose_worker_dies_is_answered_by_another(
    bundle: Path, sockets: Path, tmp_path: Path
) -> None:
    house = House(bundle)
    one, two = sockets / "d1", sockets / "d2"
    with make.gateway(tmp_path) as process, make.worker(bundle, one) as first:
        house.route(workers=[str(one / "s")])
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="the first answer")
        os.kill(first.pid, signal.SIGSTOP)  # it holds the request when it dies
        answers: list[httpx.Response] = []
        waiting = threading.Thread(target=lambda: answers.append(house.post(body=infer_body(2))))
        waiting.start()
        time.sleep(0.2)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with make.worker(bundle, two):
            house.route(workers=[str(two / "s")])
            house.announce()
            waiting.join(timeout=10)
        assert [answer.status_code for answer in answers] == [200]
        assert labels_of(answers[0]) == ["right"]


def test_a_worker_that_drains_drops_nothing(bundle: Path, sockets: Path, tmp_path: Path) -> None:
    """The old worker is told to stop while the gateway still knows only it; then the new one is announced."""
    house = House(bundle)
    one, two = sockets / "r1", sockets / "r2"
    statuses: Counter[int] = Counter()
    done = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=20) as client:
            while not done.is_set():
                headers = {"Authorization": "Bearer ana"}
                statuses[client.post(house.url + INFER, json=infer_body(0), headers=headers).status_code] += 1

    with make.gateway(tmp_path) as process, make.worker(bundle, one) as old, make.worker(bundle, two):
        house.route(workers=[str(one / "s")])
        house.announce()
        house.url = process.url
        until(lambda: house.post().status_code == 200, what="the first answer")
        threads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: statuses[200] > 10, 30, "some load")
        old.terminate()
        time.sleep(0.1)
        house.route(workers=[str(two / "s")])
        house.announce()
        before = statuses[200]
        until(lambda: statuses[200] > before + 10, 30, "answers of the new worker")
        done.set()
        for thread in threads:
            thread.join()
    assert statuses[200] > 20
    assert set(statuses) == {200}, statuses


@pytest.mark.chaos
def test_half_a_request_does_not_hold_anything_up(shared: House) -> None:
    shared.announce()  # tests before this one told Redis other routes
    until(lambda: shared.post().status_code == 200, what="routes")
    host, port = shared.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ana\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{".encode()
        )
        assert shared.post().status_code == 200


def test_it_stops_the_start_with_a_sentence_when_it_is_told_nothing(tmp_path: Path) -> None:
    environment = {"PATH": os.defpath, "PYTHONPATH": str(settings.BASE_DIR), "TAUON_VAR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", "uvicorn", "jobs.gateway:app", "--port", str(make.free_port())],
        env=environment, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "REDIS_URL is not set" in ran.stderr


def test_its_package_imports_nothing_of_django() -> None:
    code = (
        "import sys, jobs.gateway; "
        "bad = {'django', 'rest_framework', 'celery', 'channels', 'guardian', 'torch', 'onnxruntime'}; "
        "print(sorted(bad & {name.split('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=settings.BASE_DIR, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
