"""Ray Serve with one replica behind its default proxy."""

from __future__ import annotations

import time
from typing import Any

import ray
from model import answer_of, port, rows_of, run, session
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.1})
class Digits:
    def __init__(self) -> None:
        self.model = session()

    async def __call__(self, request: Request) -> dict[str, Any]:
        return answer_of(run(self.model, rows_of(await request.json())))


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port()})
    serve.run(Digits.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)
