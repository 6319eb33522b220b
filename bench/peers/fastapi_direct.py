"""What many write by hand: FastAPI calling ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from model import answer_of, port, run, session
from pydantic import BaseModel


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Body(BaseModel):
    inputs: list[Tensor]


MODEL = session()
app = FastAPI()


@app.post("/predict")
async def predict(body: Body) -> dict[str, Any]:
    rows = np.asarray(body.inputs[0].data, dtype=np.float32).reshape(-1, 64)
    return answer_of(run(MODEL, rows))


if __name__ == "__main__":
    uvicorn.run(app, port=port(), loop="uvloop", http="httptools", access_log=False)
