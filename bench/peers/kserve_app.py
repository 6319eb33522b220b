"""KServe's Python server with a model of ours."""

from __future__ import annotations

from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from model import port, run, session


class Digits(Model):
    def __init__(self) -> None:
        super().__init__("digits")
        self.session = session()
        self.ready = True

    def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        found = run(self.session, payload.inputs[0].as_numpy().astype("float32"))
        output = InferOutput(
            name="probabilities", shape=list(found.shape), datatype="FP32", data=found.ravel().tolist()
        )
        return InferResponse(response_id=payload.id or "1", model_name="digits", infer_outputs=[output])


if __name__ == "__main__":
    ModelServer(http_port=port(), enable_grpc=False, workers=1, access_log_format=None).start([Digits()])
