"""The request log at a real gateway: what reaches the disk, what does not, and that no answer waits for it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from jobs.gateway import recorder
from jobs.gateway.recorder import FRAME, MOST_PER_S, Recorder
from jobs.gateway.snapshot import Route
from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import infer_body, until
from tests.jobs.gateway_house import House

ALL = {"share": 10_000, "masks": [], "texts": True}
PREDICT = "/t/lab/digits/predict"


class Logged(House):
    """A house whose gateway's request log can be read."""

    folder: Path
    process: make.Gateway

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.folder.glob("rq-*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
            found += [json.loads(line) for line in path.read_bytes().splitlines()]
        return found

    def kept(self) -> list[dict[str, Any]]:
        return [one for one in self.lines() if "id" in one]

    def dropped(self) -> int:
        return sum(one.get("dropped", 0) for one in self.lines())

    def scribes(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.process.pid).children(recursive=True)
        return [one for one in children if "jobs.gateway.scribe" in one.cmdline()]

    def switch(self, log: dict[str, Any] | None, **fields: Any) -> None:
        """Announce the endpoint with this log and wait until the gateway knows it."""
        self.turn = getattr(self, "turn", 0) + 1
        self.route(workers=[self.model], log=log, **fields)
        self.route(f"lab/turn{self.turn}", public=True)
        self.announce()
        ready = f"/t/lab/turn{self.turn}/v2"
        until(lambda: self.get(ready, who=None).status_code == 200, what="the news at the gateway")

    model = ""


@pytest.fixture
def house(bundle: Path, model: str, tmp_path: Path) -> Iterator[Logged]:
    house = Logged(bundle)
    house.model, house.folder = model, tmp_path / "var" / "requests"
    with make.gateway(tmp_path / "var") as process:
        house.url, house.process = process.url, process
        yield house
    make.forget_routes()


def test_while_the_log_is_off_there_is_no_scribe_and_no_line(house: Logged) -> None:
    house.switch(None)
    for _ in range(5):
        assert house.post().status_code == 200
    assert house.post(path=PREDICT, body={"rows": []}).status_code in (400, 422)
    assert house.scribes() == []
    assert not list(house.folder.glob("*"))


def test_requests_of_both_ways_and_refusals_are_kept_without_their_pictures(house: Logged) -> None:
    house.switch(ALL)
    until(house.scribes, what="the scribe")
    assert house.post(body=infer_body(1), headers={"X-Request-Id": "the-short-way"}).status_code == 200
    pixels = make.picture(2).tolist()
    long = house.post(path=PREDICT, body={"images": [pixels]}, headers={"X-Request-Id": "the-long-way"})
    assert long.status_code == 200, long.text
    refused = house.post(body={"inputs": []}, headers={"X-Request-Id": "a-refusal"})
    assert refused.status_code == 422
    assert house.post("cy", headers={"X-Request-Id": "a-stranger"}).status_code == 404
    until(lambda: len(house.kept()) == 3, what="three lines")
    found = {one["id"]: one for one in house.kept()}
    short, plain, bad = (found[name] for name in ("the-short-way", "the-long-way", "a-refusal"))
    assert (short["endpoint"], short["revision"], short["token"]) == ("ep_digits", "3", "tok_ten_lab")
    assert (short["status"], short["rows"], short["label"]) == (200, 1, "middle")
    assert short["us"] > 0
    (tensor,) = short["input"]["inputs"]
    assert set(tensor) == {"name", "datatype", "shape", "sha256"}
    assert (plain["status"], plain["label"]) == (200, "right")
    assert plain["input"]["images"][0]["shape"] == [1, 8, 8]
    assert bad["status"] == 422 and bad["output"]["pointer"] == "/inputs"
    for path in house.folder.glob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(house.folder.stat().st_mode) == 0o700


def test_a_named_output_and_input_are_hidden_before_anything_is_written(house: Logged) -> None:
    house.switch({**ALL, "masks": ["image", "LABEL"]})
    until(house.scribes, what="the scribe")
    assert house.post(body=infer_body(1, id="ana@example.org")).status_code == 200
    until(house.kept, what="a line")
    (line,) = house.kept()
    assert line["input"] == {"id": "***", "inputs": [
        {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": "***"}]}  # fmt: skip
    outputs = {one["name"]: one["data"] for one in line["output"]["outputs"]}
    assert outputs["label"] == "***" and line["label"] == ""


def test_the_sample_is_as_large_as_it_was_set(house: Logged) -> None:
    house.switch({**ALL, "share": 2_500})
    until(house.scribes, what="the scribe")
    sent = 400
    for _ in range(sent):
        assert house.post().status_code == 200
    house.switch(None)
    # a quarter of 400: six standard deviations are 52
    until(lambda: abs(len(house.kept()) + house.dropped() - sent / 4) < 52, what="a quarter of the requests")
    before = len(house.lines())
    for _ in range(30):
        assert house.post().status_code == 200
    time.sleep(0.5)
    assert len(house.lines()) == before, "it was switched off"


def test_files_are_let_go_of_within_seconds_so_that_the_shipper_can_take_them(house: Logged) -> None:
    house.switch(ALL)
    until(house.scribes, what="the scribe")
    assert house.post().status_code == 200
    until(house.kept, what="a line")

    def is_free() -> bool:
        (path,) = house.folder.glob("rq-*.jsonl")
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    until(is_free, what="the end of the file")


def test_a_scribe_that_hangs_delays_no_answer_and_what_it_misses_is_counted(house: Logged) -> None:
    house.switch(ALL)
    (scribe,) = until(house.scribes, what="the scribe")
    assert house.post().status_code == 200
    until(house.kept, what="a line")
    os.kill(scribe.pid, signal.SIGSTOP)
    try:
        # more than the pipe takes: 300 requests of 40 kB
        wide = infer_body(0, parameters={"note": "x" * 40_000})
        sent = 0
        until_s = time.monotonic() + 60
        while sent < 300 and time.monotonic() < until_s:
            answer = house.post(body=wide)
            assert answer.status_code == 200
            assert answer.elapsed.total_seconds() < 5, "an answer waited for the log"
            sent += 1
    finally:
        os.kill(scribe.pid, signal.SIGCONT)
    until(lambda: len(house.kept()) + house.dropped() == sent + 1, 30, what="every request kept or counted")
    assert house.dropped() > 0, "8 MB were held, and more was sent"


def test_beyond_the_most_a_second_requests_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([7.1] * (MOST_PER_S + 3) + [8.0] * 2)
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    route = Route(
        id="ep_a", tenant_id="ten_a", slug="a", name="A", status="live", model_version="1", public=False,
        requests_per_minute=1, workers=(), inputs=[], outputs=[], log_share=10_000,
    )  # fmt: skip
    written: list[dict[str, Any]] = []

    class Pipe:
        def get_write_buffer_size(self) -> int:
            return 0

        def write(self, data: bytes) -> None:
            (size, *_rest) = FRAME.unpack_from(data)
            written.append(json.loads(data[FRAME.size : FRAME.size + size]))

    class Fed(Recorder):
        def _out(self) -> Any:
            return Pipe()

    async def send(count: int) -> None:
        for _ in range(count):
            fed.record(
                route, None, "req_00000000", body=b"{}", said=b"{}", status=200, rows=1, us=1, letter="J"
            )
        await asyncio.sleep(0)

    fed = Fed(tmp_path)
    asyncio.run(send(MOST_PER_S + 3))
    assert len(written) == MOST_PER_S
    asyncio.run(send(1))
    assert written[-1]["dropped"] == 3, "the next one that gets through tells of them"
    asyncio.run(send(1))
    assert "dropped" not in written[-1]


def test_a_scribe_that_dies_is_replaced(house: Logged) -> None:
    house.switch(ALL)
    (scribe,) = until(house.scribes, what="the scribe")
    scribe.kill()
    assert house.post().status_code == 200

    def is_back() -> bool:
        assert house.post(headers={"X-Request-Id": "after-the-death"}).status_code == 200
        return any(one["id"] == "after-the-death" for one in house.kept())

    until(is_back, 20, what="a line of the next scribe")


def test_the_scribe_ends_with_its_gateway_even_if_that_is_killed(house: Logged) -> None:
    house.switch(ALL)
    (scribe,) = until(house.scribes, what="the scribe")
    assert house.post().status_code == 200
    until(house.kept, what="a line")
    house.process.process.kill()
    house.process.process.wait()
    until(lambda: not scribe.is_running() or scribe.status() == psutil.STATUS_ZOMBIE, what="its end")
