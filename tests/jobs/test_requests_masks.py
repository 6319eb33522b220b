"""What the request log may keep: a table of requests and what is left of them."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest
from PIL import Image

from jobs.gateway import masks
from jobs.gateway.masks import HIDDEN, Mask, text

TABLE = [
    {"name": "age", "datatype": "FP32", "shape": [-1]},
    {"name": "Name", "datatype": "BYTES", "shape": [-1]},
]
TEXT = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
IMAGE = [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]


def mask(inputs: list[dict[str, Any]], *names: str, texts: bool = True) -> Mask:
    told = {"names": names, "texts": texts, "inputs": inputs}
    return Mask.from_json(json.dumps(told).encode())


def kept(inputs: list[dict[str, Any]], *names: str, letter: str, body: Any, **more: Any) -> Any:
    said = body if isinstance(body, bytes) else json.dumps(body).encode()
    return mask(inputs, *names).input(letter, more.get("kind", ""), said)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("write to ana@example.org today", "write to *** today"),
        ("请联系 ana.li+x@mail.example.cn。", "请联系 ***。"),
        ("call +49 (30) 1234-5678 now", "call *** now"),
        ("tel 13800138000", "tel ***"),
        ("号码１３８００１３８０００", "号码***"),
        ("card 4111 1111 1111 1111.", "card ***."),
        ("account DE44500105175407324931", "account DE***"),
        ("born on 2026-11-23, 42 years, room 1012", "born on 2026-11-23, 42 years, room 1012"),
        ("costs 19.99 each", "costs 19.99 each"),
    ],
)
def test_addresses_and_long_numbers_are_hidden_in_texts(said: str, left: str) -> None:
    assert text(said) == left


def test_an_address_at_the_cut_of_a_long_text_is_not_left_in_half() -> None:
    long = "x " * 1995 + "somebody@example.org and more " * 50
    assert "@" not in text(long) and "somebody" not in text(long)
    assert len(text("y" * 9000)) <= masks.MOST_TEXT + 1


def test_a_named_column_is_hidden_in_every_protocol_whatever_its_case() -> None:
    v2 = {"inputs": [{"name": "age", "datatype": "FP32", "shape": [1], "data": [41]},
                     {"name": "Name", "datatype": "BYTES", "shape": [1], "data": ["Secret Person"]}]}  # fmt: skip
    found = kept(TABLE, "name", letter="J", body=v2)
    assert found["inputs"][0]["data"] == [41] and found["inputs"][1]["data"] == HIDDEN
    plain = kept(TABLE, "NAME", letter="P", body={"rows": [{"age": 41, "Name": "Secret Person"}]})
    assert plain == {"rows": [{"age": 41, "Name": HIDDEN}]}
    one = kept(TABLE, "name", letter="P", body={"row": {"age": 41, "name": "Secret Person"}})
    assert "Secret" not in json.dumps(one)


def test_a_hidden_input_that_is_misspelled_is_hidden_all_the_same() -> None:
    v2 = {"inputs": [{"name": "nmae", "datatype": "BYTES", "shape": [1], "data": ["Secret Person"]}]}
    for letter, body in (("J", v2), ("P", {"rows": [{"nmae": "Secret Person", "age": 4}]}),
                         ("P", {"row": {"nmae": "Secret Person"}})):  # fmt: skip
        assert "Secret" not in json.dumps(kept(TABLE, "name", letter=letter, body=body)), body
        assert "Secret" in json.dumps(kept(TABLE, letter=letter, body=body)), "nothing is hidden here"


def test_the_one_hidden_input_of_a_model_is_hidden_whatever_callers_call_it() -> None:
    for letter, body in (
        ("P", {"texts": ["Secret"]}), ("P", {"text": "Secret"}), ("P", {"rows": ["Secret"]}),
        ("P", {"row": {"text": "Secret"}}), ("E", {"input": "Secret"}), ("E", {"input": ["Secret"]}),
        ("W", {"prompt": "Secret"}), ("W", {"messages": [{"role": "user", "content": "Secret"}]}),
        ("J", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Secret"]}]}),
    ):  # fmt: skip
        assert "Secret" not in json.dumps(kept(TEXT, "text", letter=letter, body=body)), (letter, body)
    said = json.dumps({"choices": [{"text": "Secret goes on"}]}).encode()
    assert "Secret" not in json.dumps(mask(TEXT, "text").output("W", 200, said, streamed=False, binary=False))


def test_pictures_are_never_kept_only_shape_and_hash() -> None:
    pixels = [0.123] * 64
    v2 = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": pixels}]}
    found = kept(IMAGE, letter="J", body=v2)["inputs"][0]
    assert found["shape"] == [1, 1, 8, 8] and len(found["sha256"]) == 64 and "data" not in found
    # a caller who is wrong about the shape sends a picture all the same
    wrong = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [64], "data": pixels}]}
    assert "0.123" not in json.dumps(kept(IMAGE, letter="J", body=wrong))
    nested = [[[0.123] * 8] * 8]
    assert kept(IMAGE, letter="P", body={"images": [nested]})["images"][0]["shape"] == [1, 8, 8]
    for member in ("image", "row", "rows"):
        assert "0.123" not in json.dumps(kept(IMAGE, letter="P", body={member: nested})), member
    png = io.BytesIO()
    Image.new("L", (30, 20), 7).save(png, "PNG")
    (file,) = kept(IMAGE, letter="P", body=png.getvalue(), kind="image/png")
    assert file["shape"] == [20, 30] and file["bytes"] == len(png.getvalue())
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="ana.png"\r\n\r\n%b\r\n--b--\r\n'
    (part,) = kept(IMAGE, letter="P", body=form % png.getvalue(), kind="multipart/form-data; boundary=b")
    assert part["sha256"] == file["sha256"] and "ana" not in json.dumps(part)


def test_binary_tensors_are_read_and_masked_like_the_others() -> None:
    word = b"ana@example.org"
    tails = struct.pack("<f", 41.5) + struct.pack("<I", len(word)) + word
    head = json.dumps({"inputs": [
        {"name": "age", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
        {"name": "Name", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(word)}},
    ]}).encode()  # fmt: skip
    found = kept(TABLE, letter="B", body=head + tails, kind=str(len(head)))["inputs"]
    assert [one["data"] for one in found] == [[41.5], [HIDDEN]]
    half = kept(TABLE, letter="B", body=head + tails, kind=str(len(head) - 5))
    assert set(half) == {"bytes", "sha256"}


def test_what_cannot_be_read_is_kept_as_size_and_hash_only() -> None:
    for body in (b"not json Secret", b'["Secret"]', b'"Secret"', b"[" * 100_000):
        assert set(kept(TEXT, letter="J", body=body)) == {"bytes", "sha256"}
    assert kept(TEXT, letter="J", body=b"") is None


def test_long_whole_numbers_of_a_table_are_hidden_and_others_stay() -> None:
    row = {"age": 41, "Name": "x", "card": 4111111111111111, "price": 12.5, "yes": True, "big": 1e308}
    found = kept(TABLE, letter="P", body={"row": row})["row"]
    assert found == {"age": 41, "Name": "x", "card": HIDDEN, "price": 12.5, "yes": True, "big": 1e308}
    assert mask(TABLE, texts=False).input("P", "", json.dumps({"row": row}).encode())["row"] == row


def test_a_refusal_keeps_code_and_place_and_no_value_of_a_hidden_input() -> None:
    said = json.dumps({"code": "invalid", "detail": 'A number is expected here, not "ana@example.org".',
                       "errors": [{"pointer": "/inputs/0/data/3", "detail": "…"}]}).encode()  # fmt: skip
    told = mask(TABLE).output("J", 422, said, streamed=False, binary=False)
    assert told["pointer"] == "/inputs/0/data/3" and "expected here" in told["detail"]
    assert "ana@" not in told["detail"]
    assert mask(TABLE, "age").output("J", 422, said, streamed=False, binary=False)["detail"] == HIDDEN


def test_a_long_list_is_cut_and_a_huge_answer_left_out() -> None:
    found = kept(TABLE, letter="P", body={"rows": [{"age": n} for n in range(500)]})["rows"]
    assert len(found) == masks.MOST_VALUES + 1 and found[-1] == "… 436 more"
    huge = {"rows": [{f"c{n}": "word " * 300 for n in range(60)}]}
    assert kept(TABLE, letter="P", body=huge)["left_out"] == "too long"
    deep: Any = "Secret"
    for _ in range(40):
        deep = [deep]
    assert "Secret" not in json.dumps(kept(TABLE, letter="P", body={"row": deep}))


def test_a_streamed_answer_is_kept_as_the_text_it_makes() -> None:
    pieces = [{"choices": [{"delta": {"content": part}}]} for part in ("call ", "138001", "38000")]
    said = b"\n".join(json.dumps(one).encode() for one in pieces) + b"\n[DONE]"
    assert mask(TEXT).output("W", 200, said, streamed=True, binary=False) == {"text": "call ***"}


def test_the_class_of_the_first_row_is_told_unless_it_is_hidden() -> None:
    v2 = {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["cat", "dog"]}]}
    plain = {"predictions": [{"label": "cat", "probability": 0.9}]}
    for letter, said in (("J", v2), ("P", plain)):
        body = json.dumps(said).encode()
        assert masks.label_of(mask(TEXT).output(letter, 200, body, streamed=False, binary=False)) == "cat"
        hidden = mask(TEXT, "label").output(letter, 200, body, streamed=False, binary=False)
        assert masks.label_of(hidden) == ""
    assert masks.label_of({"predictions": [{"prediction": 3.0}]}) == masks.label_of(None) == ""


@pytest.mark.parametrize(
    ("inputs", "name", "letter", "body"),
    [
        (TEXT, "text", "P", {"inputs": [{"name": "text", "data": ["my secret"]}]}),
        (TEXT, "text", "J", {"texts": ["my secret"]}),
        (TEXT, "text", "J", {"Inputs": [{"name": "text", "data": ["my secret"]}]}),
        (TABLE, "Name", "P", {"rows": [[41, "my secret"]]}),
        (TABLE, "Name", "P", {"row": "41,my secret"}),
        (TEXT, "text", "W", {"prompt": "a", "suffix": "my secret"}),
    ],
)
def test_what_is_hidden_is_not_kept_where_another_protocol_would_have_it(
    inputs: list[dict[str, Any]], name: str, letter: str, body: dict[str, Any]
) -> None:
    assert "secret" not in json.dumps(kept(inputs, name, letter=letter, body=body))


def test_a_refused_request_is_kept_by_its_size_alone_where_something_is_hidden() -> None:
    body = b'{"inputs": [{"name": "nome", "datatype": "my secret"}]}'
    assert set(mask(TABLE, "Name").input("J", "", body, status=422)) == {"bytes", "sha256"}
    assert mask(TABLE).input("J", "", body, status=422)["inputs"]


def test_the_place_of_a_hidden_text_among_others_is_hidden_too() -> None:
    said = json.dumps({"data": [{"embedding": [0.25, 0.5]}]}).encode()
    assert "0.25" not in json.dumps(mask(TEXT, "text").output("E", 200, said, streamed=False, binary=False))
