"""The OpenAI API's words: embeddings from text models, completions and chat from language models.

A token is what the model itself reads or writes at a time: an n-gram's number or a character.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from trainer.bundle import ONNX_FILE, PROBABILITIES_OUTPUT, Bundle, WrongInput
from trainer.data import words
from trainer.protocol import MAX_ROWS, NotARequest
from trainer.recipes import language

MOST_TOKENS = 2048  # that one request may have written
USUAL_TOKENS = 64
MOST_STOPS = 4


class Embedder:
    """The model's graph up to its last layer: what it makes of a text before it decides."""

    def __init__(self, folder: Any) -> None:
        # onnx is large, and most workers never embed
        import onnx
        import onnxruntime

        model = onnx.load(str(folder / ONNX_FILE), load_external_data=False)
        if any(one.data_location == onnx.TensorProto.EXTERNAL for one in model.graph.initializer):
            raise WrongInput("/model", "This model keeps its weights in other files; it cannot embed.")
        name = _before_the_last_layer(model.graph)
        if name is None:
            raise WrongInput("/model", "This model has no layer to take embeddings from.")
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._name = name
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, bundle: Bundle, encoded: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Vectors of length one, [rows, width]."""
        found: npt.NDArray[np.float32] = self._session.run([self._name], bundle.feed(encoded))[0]
        found = found.reshape(len(encoded), -1)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def takes_text(bundle: Bundle) -> bool:
    return len(bundle.inputs) == 1 and bundle.inputs[0]["datatype"] == "BYTES"


def writes_text(bundle: Bundle) -> bool:
    return hasattr(bundle.recipe, "go_on")


def embeddings(body: bytes, bundle: Bundle, embedder: Embedder, *, name: str) -> tuple[bytes, int, int]:
    """The answer to an embeddings request, its rows and its tokens."""
    asked = read(body)
    texts = _texts(asked.get("input"), "/input")
    form = asked.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise WrongInput("/encoding_format", "It is float or base64.")
    if asked.get("dimensions") is not None:
        raise WrongInput("/dimensions", "This model's embeddings have one size only. Leave it out.")
    encoded = bundle.encode({bundle.inputs[0]["name"]: words(texts)})
    vectors = embedder.embed(bundle, encoded)
    tokens = sum(len(row) for row in encoded)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if form == "base64"
            else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    said = {"object": "list", "data": data, "model": name, "usage": usage}
    return msgspec.json.encode(said), len(texts), tokens


class Writing:
    """One text that is being written, a character at a time."""

    def __init__(self, body: bytes, bundle: Bundle, *, name: str, chat: bool, call_id: str) -> None:
        asked = read(body)
        if not writes_text(bundle):
            raise WrongInput("/model", "This model does not write text. Its /predict says what it answers.")
        self.chat, self.name, self.call_id = chat, name, call_id
        self.created = int(time.time())
        self.prompt = _chat(asked.get("messages")) if chat else _prompt(asked.get("prompt", ""))
        if asked.get("n", 1) != 1:
            raise WrongInput("/n", "One answer at a time is written. Leave n out and ask again for more.")
        most = asked.get(
            "max_completion_tokens" if chat and "max_completion_tokens" in asked else "max_tokens"
        )
        self.most = int(_number(most, "/max_tokens", 1, MOST_TOKENS, USUAL_TOKENS, whole=True))
        self.temperature = _number(asked.get("temperature"), "/temperature", 0, 2, language.TEMPERATURE)
        seed = asked.get("seed")
        self.dice = np.random.default_rng(
            None if seed is None else int(_number(seed, "/seed", 0, 2**62, 0, whole=True))
        )
        self.stops = _stops(asked.get("stop"))
        self.streams = asked.get("stream") is True
        options = asked.get("stream_options") or {}
        self.tells_usage = isinstance(options, dict) and options.get("include_usage") is True
        (self._ids,) = (
            row.tolist() for row in bundle.encode({bundle.inputs[0]["name"]: words([self.prompt])})
        )
        self.read_tokens = len(self._ids)
        self.text = ""
        self.written = 0
        self.finish: str | None = None
        self._context = int(bundle.transform["context"])
        self._classes = bundle.classes

    @property
    def row(self) -> npt.NDArray[np.int64]:
        """What the graph is asked next: the start sign and as much of the end as it sees."""
        return np.asarray([language.START, *self._ids[1:][-self._context :]], dtype=np.int64)

    @property
    def tokens(self) -> int:
        return self.read_tokens + self.written

    def take(self, shares: npt.NDArray[np.float32]) -> str:
        """Choose the next character; returns it, or nothing where a stop was met."""
        chosen = language.choose(shares, self.dice, temperature=self.temperature, top_k=language.TOP_K)
        self._ids.append(chosen)
        self.text += self._classes[chosen]
        self.written += 1
        for stop in self.stops:
            if self.text.endswith(stop):
                self.text, self.finish = self.text[: -len(stop)], "stop"
                return ""
        if self.written >= self.most:
            self.finish = "length"
        return self._classes[chosen]

    def piece(self, text: str, *, first: bool = False) -> bytes:
        """One event of a stream."""
        if self.chat:
            delta = {"role": "assistant", "content": text} if first else {"content": text}
            return self._event({"delta": delta})
        return self._event({"text": text})

    def last_pieces(self) -> list[bytes]:
        """The events that end a stream: why it ended, and what it took if that was asked for."""
        ends: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        pieces = [self._event(ends, finish=self.finish)]
        if self.tells_usage:
            pieces.append(
                msgspec.json.encode({**self._head(chunk=True), "choices": [], "usage": self._usage()})
            )
        return pieces

    def answer(self) -> bytes:
        """The whole answer, for a caller that does not stream."""
        told: dict[str, Any] = (
            {"message": {"role": "assistant", "content": self.text}} if self.chat else {"text": self.text}
        )
        choice = {"index": 0, **told, "logprobs": None, "finish_reason": self.finish}
        return msgspec.json.encode({**self._head(), "choices": [choice], "usage": self._usage()})

    def _event(self, told: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, **told, "logprobs": None, "finish_reason": finish}
        return msgspec.json.encode({**self._head(chunk=True), "choices": [choice]})

    def _head(self, *, chunk: bool = False) -> dict[str, Any]:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {"id": self.call_id, "object": kind, "created": self.created, "model": self.name}

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.read_tokens,
            "completion_tokens": self.written,
            "total_tokens": self.tokens,
        }


def read(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotARequest(f"The body is not JSON: {error}.") from None
    if not isinstance(asked, dict):
        raise NotARequest("The body must be an object.")
    return asked


def _texts(given: object, pointer: str) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_ROWS:
        raise WrongInput(pointer, f"Send a text, or a list of 1 to {MAX_ROWS} texts.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise WrongInput(f"{pointer}/{index}", "Text is expected here; numbers of tokens are not taken.")
    return texts


def _prompt(given: object) -> str:
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if not isinstance(given, str):
        raise WrongInput("/prompt", "The prompt is one text.")
    return given


def _chat(given: object) -> str:
    """The model was trained on plain text, so a talk is put to it as one: what was said, line by line."""
    if not isinstance(given, list) or not given:
        raise WrongInput("/messages", "Send a list of messages, each with role and content.")
    lines = []
    for index, message in enumerate(given):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            texts = [part for part in parts if isinstance(part, str)]
            content = "".join(texts) if len(texts) == len(parts) else None
        if not isinstance(content, str):
            raise WrongInput(f"/messages/{index}/content", "The content is a text.")
        lines.append(content)
    return "\n".join(lines) + "\n"


def _stops(given: object) -> list[str]:
    stops = [given] if isinstance(given, str) else given or []
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise WrongInput("/stop", f"Up to {MOST_STOPS} texts, none of them empty.")
    return stops


def _number(
    given: object, pointer: str, least: float, most: float, usual: float, *, whole: bool = False
) -> float:
    if given is None:
        return usual
    fits = type(given) is int or (not whole and type(given) is float)
    if not fits or not least <= given <= most:  # type: ignore[operator]
        raise WrongInput(pointer, f"A {'whole ' if whole else ''}number from {least:g} to {most:g}.")
    return given  # type: ignore[return-value]


def _before_the_last_layer(graph: Any) -> str | None:
    """The tensor that goes into the last matrix product before the probabilities."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = {one.name for one in graph.initializer}
    name = PROBABILITIES_OUTPUT
    for _ in range(50):
        node = makers.get(name)
        if node is None:
            return None
        inputs = [one for one in node.input if one and one not in constants]
        if not inputs:
            return None
        if node.op_type in ("Gemm", "MatMul", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits"):
            maker = makers.get(inputs[0])
            if maker is not None and maker.op_type == "DynamicQuantizeLinear":
                return str(maker.input[0])
            return str(inputs[0])
        name = next((one for one in inputs if one in makers), inputs[0])
    return None
