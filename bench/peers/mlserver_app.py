"""MLServer with a model of ours, in its own process model without parallel workers."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import run, session


class Digits(MLModel):
    async def load(self) -> bool:
        self.session = session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype("float32")
        output = NumpyCodec.encode_output("probabilities", run(self.session, rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
