"""What the gateway writes down before it answers: nothing lost, nothing twice, nothing for a refusal."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import httpx

from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import infer_body, until
from tests.jobs.gateway_house import INFER, LAB, House


def test_kill_9_loses_no_answered_request_and_counts_none_twice(
    bundle: Path, model: str, tmp_path: Path
) -> None:
    house = House(bundle)
    house.route(workers=[model])
    house.announce()
    answered: list[str] = []
    clients = 4

    def load(number: int) -> None:
        with httpx.Client(timeout=5) as client:
            for turn in range(100_000):
                headers = {"Authorization": "Bearer ana", "X-Request-Id": f"call-{number}-{turn:06}"}
                try:
                    answer = client.post(house.url + INFER, json=infer_body(0), headers=headers)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    answered.append(answer.headers["x-request-id"])

    process = make.Gateway(tmp_path, segment_bytes=20_000)
    house.url = process.url
    until(lambda: house.post(headers={"X-Request-Id": "the-first-one"}).status_code == 200, what="an answer")
    threads = [threading.Thread(target=load, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 300, what="some load")
    process.process.kill()
    process.process.wait()
    for thread in threads:
        thread.join()
    segments = list((tmp_path / "usage").glob("gw-*.jsonl"))
    assert len(segments) > 1, "segments were not rotated"
    lines = [line for path in segments for line in path.read_bytes().splitlines()]
    counted = Counter(json.loads(line)["id"] for line in lines)
    assert set(counted.values()) == {1}
    assert set(answered) <= set(counted)
    assert len(counted) - len(answered) <= clients + 1  # written, and killed before the answer was out


def test_refused_requests_cost_nothing(shared: House, model: str, bundle: Path, tmp_path: Path) -> None:
    house = House(bundle)
    house.route(workers=[model])
    with make.gateway(tmp_path) as process:
        house.announce()
        house.url = process.url
        until(lambda: house.post(body={"inputs": []}).status_code == 422, what="a refusal")
        house.post(None)
        house.get("/t/lab/digits/v2")
        assert not list((tmp_path / "usage").glob("*"))
        assert house.post(body=infer_body(0, 1)).status_code == 200
        (segment,) = (tmp_path / "usage").glob("gw-*.jsonl")
        (line,) = segment.read_text().splitlines()
    said = json.loads(line)
    assert (said["tenant"], said["endpoint"], said["token"]) == (LAB, "ep_digits", "tok_ten_lab")
    assert (said["rows"], said["version"], said["status"]) == (2, "3", 200)
    assert said["us"] > 0
    shared.announce()


def test_it_refuses_work_it_cannot_write_down(
    shared: House, model: str, bundle: Path, tmp_path: Path
) -> None:
    house = House(bundle)
    house.route(workers=[model])
    (tmp_path / "usage").rmdir()
    (tmp_path / "usage").write_text("a file where the folder should be")
    with make.gateway(tmp_path) as process:
        house.announce()
        house.url = process.url
        until(lambda: house.get("/t/lab/digits/v2/health/ready").status_code == 200, what="routes")
        refused = house.post()
    assert (refused.status_code, refused.json()["code"]) == (503, "cannot_count")
    shared.announce()
