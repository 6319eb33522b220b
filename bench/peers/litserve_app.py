"""LitServe with its batching on."""

from __future__ import annotations

from typing import Any

import litserve as ls
import numpy as np
from model import answer_of, port, rows_of, run, session


class Digits(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = session()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # an annotation would make it a query parameter
        return rows_of(request)[0]

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return run(self.model, x)

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return answer_of(output[None])


if __name__ == "__main__":
    api = Digits(max_batch_size=32, batch_timeout=0.002)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(port=port(), num_api_servers=1, generate_client_file=False, log_level="warning")
