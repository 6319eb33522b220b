"""The `openai` package, unchanged, against a real gateway: embeddings of a text model, texts of a language model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch

from tests.jobs import factories_endpoints as make
from tests.jobs.factories_endpoints import until
from tests.jobs.gateway_house import House
from trainer.bundle import write_bundle
from trainer.contract import Recipe
from trainer.data import words
from trainer.export import export_network
from trainer.recipes import language, networks, text

pytestmark = pytest.mark.slow


def untrained(
    folder: Path, recipe: Recipe, transform: dict[str, Any], classes: tuple[str, ...], graph: Any
) -> Path:
    """A bundle of a network with random weights: what it says does not matter here, how it is asked does."""
    network = networks.build(recipe, transform, len(classes), seed=1)
    for parameter in network.parameters():
        if not parameter.any():  # a table that training would fill
            torch.nn.init.normal_(parameter)
    examples = [torch.randint(1, 5, (rows, 6)) for rows in (2, 3)]
    export_network(network, examples, folder, graph_input=graph.GRAPH_INPUT)
    sample = {"text": words(["a cat"])}
    write_bundle(
        folder, recipe_name=recipe, variant="original", classes=classes, transform=transform, sample=sample
    )
    return folder


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("openai")
    characters = "".join(sorted(set("a cat sat on the mat.\n")))
    transform = {"characters": characters, "context": language.CONTEXT}
    writer = untrained(root / "lm", Recipe.LANGUAGE, transform, (*language.SPECIAL, *characters), language)
    hashed = {"buckets": 1024, "ngrams": [1, 2, 3], "max_characters": 1000}
    reader = untrained(root / "text", Recipe.TEXT, hashed, ("no", "yes"), text)
    with make.worker(writer, root / "w1"), make.worker(reader, root / "w2"):
        house = House(writer)
        house.route("lab/digits", workers=[str(root / "w1" / "s")])
        house.route("lab/mood", workers=[str(root / "w2" / "s")])
        house.announce()
        house.var = root  # type: ignore[attr-defined]
        with make.gateway(root) as process:
            house.url = process.url
            until(lambda: house.get("/t/lab/digits/v2/health/ready").status_code == 200, what="routes")
            until(lambda: house.get("/t/lab/mood/v2/health/ready").status_code == 200, what="routes")
            yield house
    make.forget_routes()


def client(house: House, slug: str = "digits", key: str = "ana") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{house.url}/t/lab/{slug}/v1", api_key=key, max_retries=0, timeout=60)


def counted(house: House, call_id: str) -> dict[str, Any]:
    lines = [
        json.loads(line) for path in (house.var / "usage").glob("gw-*.jsonl")  # type: ignore[attr-defined]
        for line in path.read_text().splitlines()
    ]  # fmt: skip
    (found,) = [line for line in lines if line["id"] == call_id]
    return found


def test_models_are_listed(house: House) -> None:
    (model,) = client(house).models.list().data
    assert (model.id, model.object) == ("digits", "model")
    assert client(house).models.retrieve("digits").id == "digits"
    with pytest.raises(openai.NotFoundError):
        client(house).models.retrieve("other")


def test_embeddings_of_one_and_of_many_texts_are_the_same_and_counted(house: House) -> None:
    mood = client(house, "mood")
    many = mood.embeddings.create(
        model="mood", input=["a cat", "the mat"], extra_headers={"X-Request-Id": "embed-0001"}
    )
    one = mood.embeddings.create(model="mood", input="the mat", encoding_format="float")
    assert [item.index for item in many.data] == [0, 1]
    vectors = np.asarray([item.embedding for item in many.data])
    assert np.allclose(vectors[1], one.data[0].embedding, atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)
    line = counted(house, "embed-0001")
    assert (line["rows"], line["tokens"]) == (2, many.usage.prompt_tokens)
    assert many.usage.prompt_tokens > one.usage.prompt_tokens > 0


def test_a_completion_is_written_the_same_with_and_without_a_stream(house: House) -> None:
    asked: dict[str, Any] = {
        "model": "digits",
        "prompt": "a cat",
        "max_tokens": 12,
        "seed": 3,
        "temperature": 0.5,
    }
    whole = client(house).completions.create(**asked, extra_headers={"X-Request-Id": "write-0001"})
    assert len(whole.choices[0].text) == 12 and whole.choices[0].finish_reason == "length"
    assert whole.usage is not None and whole.usage.completion_tokens == 12
    pieces = list(
        client(house).completions.create(**asked, stream=True, extra_headers={"X-Request-Id": "write-0002"})
    )
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    assert pieces[-1].choices[0].finish_reason == "length"
    for call_id in ("write-0001", "write-0002"):
        assert counted(house, call_id)["tokens"] == whole.usage.total_tokens


def test_a_chat_streams_and_tells_what_it_took(house: House) -> None:
    messages: list[Any] = [{"role": "system", "content": "a mat"}, {"role": "user", "content": "the cat"}]
    asked: dict[str, Any] = {"model": "digits", "messages": messages, "max_tokens": 8, "seed": 1}
    whole = client(house).chat.completions.create(**asked)
    assert whole.choices[0].message.role == "assistant"
    pieces = list(
        client(house).chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    said = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert said == whole.choices[0].message.content
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-1].usage is not None and pieces[-1].usage.completion_tokens == 8


def test_writing_stops_where_it_is_told(house: House) -> None:
    asked: dict[str, Any] = {"model": "digits", "prompt": "a", "max_tokens": 200, "seed": 5}
    whole = client(house).completions.create(**asked).choices[0].text
    stop = whole[20]
    cut = client(house).completions.create(**asked, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop" and cut.text == whole[: whole.index(stop)]


def test_what_cannot_be_done_is_said_in_the_words_of_that_api(house: House) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client(house, "mood").completions.create(model="mood", prompt="a")
    assert "does not write text" in str(refused.value) and refused.value.param == "/model"
    with pytest.raises(openai.UnprocessableEntityError, match="number from 0 to 2"):
        client(house).completions.create(model="digits", prompt="a", temperature=9)
    with pytest.raises(openai.AuthenticationError):
        client(house, key="nobody").models.list()


def test_a_caller_who_leaves_midway_is_counted_for_what_was_sent(house: House) -> None:
    stream = client(house).completions.create(
        model="digits", prompt="a", max_tokens=2000, stream=True, extra_headers={"X-Request-Id": "leave-0001"}
    )
    for _ in range(3):
        next(iter(stream))
    stream.close()

    def line() -> Any:
        try:
            return counted(house, "leave-0001")
        except ValueError:
            return None

    told = until(line, 20, "the line of what was sent")
    assert 3 <= told["tokens"] < 2000


def test_a_streamed_text_is_logged_as_the_text_that_callers_read(house: House) -> None:
    root: Path = house.var  # type: ignore[attr-defined]
    house.route(
        "lab/digits", workers=[str(root / "w1" / "s")], log={"share": 10_000, "masks": [], "texts": True}
    )
    house.announce()
    told: dict[str, str] = {}

    def logged() -> dict[str, Any] | None:
        """Another stream, until one was sent when the gateway knew of the log."""
        call_id = f"logged-{len(told):04}"
        pieces = client(house).completions.create(
            model="digits", prompt="a cat", max_tokens=9, seed=3, stream=True,
            extra_headers={"X-Request-Id": call_id},
        )  # fmt: skip
        told[call_id] = "".join(piece.choices[0].text for piece in pieces)
        lines = [
            json.loads(line) for path in (root / "requests").glob("rq-*.jsonl")
            for line in path.read_text().splitlines()
        ]  # fmt: skip
        return next((line for line in lines if line.get("id") in told), None)

    line = until(logged, 30, what="a logged stream")
    assert line["output"] == {"text": told[line["id"]]} and len(told[line["id"]]) == 9
    assert line["input"]["prompt"] == "a cat" and line["input"]["stream"] is True
    house.route("lab/digits", workers=[str(root / "w1" / "s")])
    house.announce()
