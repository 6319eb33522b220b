"""Random kill -9 of gateway and workers under load. Standard library, so that a test runs it too."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

import numpy as np

from bench.stack import PATH, TOKEN, Stack, infer_body, post, row, until
from trainer.bundle import open_bundle

CLIENTS = 4
ROWS = 16  # different ones; each client knows the right answer to all
PAUSE_S = (0.05, 0.4)  # between a recovery and the next kill


@dataclass(slots=True)
class Outcome:
    kills: int = 0
    answered: set[str] = field(default_factory=set)
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0  # connections that ended without an answer
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def not_counted(self) -> int:
        return sum(self.counted[one] == 0 for one in self.answered)

    @property
    def counted_twice(self) -> int:
        return sum(count > 1 for count in self.counted.values())

    @property
    def availability(self) -> float:
        """Answered of all that were sent. A request that met a dead gateway counts as not answered."""
        return len(self.answered) / max(1, self.tried)


def run(kills: int, *, seed: int = 7) -> Outcome:
    """Kill `kills` times, waiting for recovery each time; then compare answers with what was written down."""
    outcome, done = Outcome(), threading.Event()
    ours = Stack(segment_bytes=200_000)
    try:
        ours.start_redis()
        for name in ("w0", "w1"):
            ours.start_worker(name)
        ours.announce("w0", "w1")
        ours.start_gateway()
        until(lambda: post(ours.url + PATH, infer_body(0))[0] == 200, 20, "the first answer")
        right = _right_answers(ours)
        clients = [
            threading.Thread(target=_load, args=(ours, number, right, outcome, done), daemon=True)
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        chance = random.Random(seed)
        for _ in range(kills):
            time.sleep(chance.uniform(*PAUSE_S))
            victim = chance.choice(["gateway", "w0", "w1"])
            process = ours.processes[victim]
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            # a supervisor's part: what died is started again
            ours.start_gateway() if victim == "gateway" else ours.start_worker(victim)
            outcome.kills += 1
        done.set()
        for client in clients:
            client.join(timeout=30)
        outcome.counted = Counter(line["id"] for line in ours.usage_lines())
        return outcome
    finally:
        done.set()
        ours.stop()


def measure(kills: int) -> tuple[dict[str, float], list[str]]:
    """For the bench."""
    outcome = run(kills)
    if outcome.wrong:
        raise SystemExit(f"wrong answers: {outcome.wrong[:3]}")
    text = (
        f"kills: {len(outcome.answered)} of {outcome.tried} requests answered ({outcome.availability:.2%}) by one "
        f"gateway and two workers, one of them killed every fraction of a second; {outcome.broken} connections "
        f"ended without an answer, {sum(outcome.refused.values())} requests were refused; no wrong answer"
    )
    metrics = {
        "kills": float(outcome.kills),
        "answered_not_counted": float(outcome.not_counted),
        "counted_twice": float(outcome.counted_twice),
    }
    return metrics, [text]


def _right_answers(ours: Stack) -> Any:
    rows = np.asarray([row(seed) for seed in range(ROWS)], dtype=np.float32)
    return open_bundle(ours.bundle).probabilities(rows.reshape(-1, 1, 8, 8))


def _load(ours: Stack, number: int, right: Any, outcome: Outcome, done: threading.Event) -> None:
    bodies = [json.dumps(infer_body(seed)).encode() for seed in range(ROWS)]
    connection: HTTPConnection | None = None
    turn = 0
    while not done.is_set():
        turn += 1
        seed = (turn * 7 + number) % ROWS
        call_id = f"call-{number}-{turn:07}"
        headers = {
            "Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}", "X-Request-Id": call_id,
        }  # fmt: skip
        outcome.tried += 1
        try:
            if connection is None:
                connection = HTTPConnection("127.0.0.1", ours.port, timeout=15)
            connection.request("POST", PATH, bodies[seed], headers)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, HTTPException):
            outcome.broken += 1
            connection = None
            time.sleep(0.01)
            continue
        if answer.status != 200:
            outcome.refused[answer.status] += 1
            time.sleep(0.01)
        else:
            outcome.answered.add(call_id)
            if not np.allclose(json.loads(said)["outputs"][0]["data"], right[seed], atol=1e-4):
                outcome.wrong.append(call_id)
