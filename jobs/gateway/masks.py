"""What of a request and its answer may be kept: named inputs hidden, texts without addresses and numbers, no pictures.

Pure. What cannot be read is never kept as it came, only its size and SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from PIL import Image

HIDDEN = "***"
MOST_VALUES = 64  # of one list; the rest is only counted
MOST_TEXT = 2000  # characters of one text
MOST_KEPT = 32 * 1024  # characters of one side as JSON
MOST_DEPTH = 12
LONG_DIGITS = 9  # of a whole number: an account, a card, a telephone
_READ_TEXT = 2 * MOST_TEXT
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_DIGITS = re.compile(r"\+?\(?\d(?:[\s().\-/\u2010-\u2015]{0,2}\d){6,}")
_DATE = re.compile(r"\d{4}[-/.]\d{2}[-/.]\d{2}")
_BINARY = {"FP64": "d", "FP32": "f", "INT64": "q", "INT32": "i", "INT16": "h", "INT8": "b",
           "UINT64": "Q", "UINT32": "I", "UINT16": "H", "UINT8": "B", "BOOL": "?"}  # fmt: skip
_ROWS = frozenset({"row", "rows", "text", "texts", "image", "images", "input", "prompt", "messages"})
# what a protocol calls its members: where something is to be hidden, any other one is, since callers err
_MEMBERS = {
    **dict.fromkeys(
        "JB", frozenset({"id", "inputs", "outputs", "parameters", "model_name", "model_version"})
    ),
    "P": frozenset({"row", "rows", "text", "texts", "image", "images", "model", "version", "predictions"}),
}
_OPENAI = frozenset({
    "id", "object", "created", "model", "input", "prompt", "messages", "data", "choices", "usage", "temperature",
    "max_tokens", "max_completion_tokens", "seed", "stream", "n", "encoding_format",
})  # fmt: skip


def text(said: str) -> str:
    """A text without e-mail addresses, telephone numbers and other long numbers, cut to a length."""
    cut = said
    if len(said) > _READ_TEXT:
        # not in the middle of a word: half an address would not be known for one
        cut = said[:_READ_TEXT].rsplit(None, 1)[0]
    cut = _DIGITS.sub(_hide_digits, _EMAIL.sub(HIDDEN, cut))
    return shortened(cut, len(said) > _READ_TEXT)


def shortened(said: str, longer: bool = False) -> str:
    return said[:MOST_TEXT] + "…" if longer or len(said) > MOST_TEXT else said


def label_of(output: Any) -> str:
    """The first row's class, of a model that tells classes apart; "" where there is none or it is hidden."""
    found: Any = None
    with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
        if "predictions" in output:
            found = output["predictions"][0].get("label")
        elif "outputs" in output:
            data = next((one["data"] for one in output["outputs"] if one.get("name") == "label"), None)
            found = data[0] if isinstance(data, list) else None
    return found[:200] if isinstance(found, str) and found != HIDDEN else ""


@dataclass(frozen=True, slots=True)
class Mask:
    """The rules of one endpoint."""

    names: frozenset[str]  # of inputs, columns and outputs, in small letters
    texts: bool  # addresses and long numbers in texts are hidden
    inputs: Sequence[Mapping[str, Any]]  # the model's own

    @classmethod
    def from_json(cls, said: bytes) -> Mask:
        raw = json.loads(said)
        return cls(frozenset(str(one).casefold() for one in raw["names"]), bool(raw["texts"]), raw["inputs"])

    # -- a request -------------------------------------------------------------------------------------------

    def input(self, letter: str, kind: str, body: bytes, *, status: int = 200) -> Any:
        """The request as it may be kept. `kind`: its media type (P), or how many bytes are JSON (B).

        One that was refused may hold what is to be hidden in places where nobody looks for it.
        """
        if not body:
            return None
        if status >= 400 and self.names:
            return _unread(body)
        if letter == "P" and kind.lower().startswith(("image/", "multipart/")):
            return HIDDEN if self._hides_all else _files(body, kind)
        size = int(kind) if letter == "B" and kind.isdigit() else len(body)
        try:
            asked = json.loads(body[:size])
        except (ValueError, RecursionError):
            return _unread(body)
        if not isinstance(asked, dict):
            return _unread(body)
        if letter in "JB":
            return _bounded(self._tensors(asked, "inputs", body[size:]), body)
        known = self._known(letter, asked)
        return _bounded({key: self._part(key, one) for key, one in known.items()}, body)

    # -- an answer -------------------------------------------------------------------------------------------

    def output(self, letter: str, status: int, said: bytes, *, streamed: bool, binary: bool) -> Any:
        """The answer as it may be kept, be it a refusal."""
        if not said:
            return None
        size = len(said)
        if binary and size >= 4:
            size, said = int.from_bytes(said[:4], "big"), said[4:]
        if streamed and status < 300:
            return _bounded({"text": HIDDEN if self._hides_all else self._word(_joined(said))}, said)
        try:
            told = json.loads(said[:size])
        except (ValueError, RecursionError):
            return _unread(said)
        if not isinstance(told, dict):
            return _unread(said)
        if status >= 300:
            return self._refusal(told)
        if letter in "JB":
            return _bounded(self._tensors(told, "outputs", said[size:]), said)
        if letter in "WE" and self._hides_all:
            return {
                "text": HIDDEN
            }  # what goes on with a hidden text tells of it, as does its place among others
        return _bounded({key: self._value(one, key) for key, one in told.items()}, said)

    def _refusal(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Code and place of a fault. Its sentence may repeat a value, so it goes where names are hidden."""
        errors = told.get("errors") if isinstance(told.get("errors"), list) else []
        found = {
            "code": str(told.get("code", "")),
            "detail": HIDDEN if self.names else self._word(str(told.get("detail", ""))),
        }
        pointers = [str(one.get("pointer", "")) for one in errors or () if isinstance(one, dict)]
        return found | ({"pointer": self._word(pointers[0])} if pointers else {})

    # -- parts -----------------------------------------------------------------------------------------------

    def _known(self, letter: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """The members this protocol has; any other one is hidden where something is to be hidden."""
        members = _MEMBERS.get(letter, _OPENAI)
        return {key: one if not self.names or key in members else HIDDEN for key, one in said.items()}

    @property
    def _pictures(self) -> bool:
        return any(self._is_picture(one.get("shape")) for one in self.inputs)

    @property
    def _hides_all(self) -> bool:
        """The model's one input is hidden, whatever a caller calls it."""
        return len(self.inputs) == 1 and str(self.inputs[0].get("name", "")).casefold() in self.names

    @staticmethod
    def _is_picture(shape: object) -> bool:
        return isinstance(shape, list) and len(shape) >= 3

    def _hidden(self, name: object) -> bool:
        return isinstance(name, str) and name.casefold() in self.names

    def _part(self, key: str, one: Any) -> Any:
        """One member of a request in plain JSON: rows, texts, images, messages."""
        if self._hidden(key) or (self._hides_all and key in _ROWS):
            return HIDDEN
        if key in ("image", "images") or (self._pictures and key in _ROWS):
            many = key.endswith("s") and isinstance(one, list)
            return [_picture(part) for part in one[:MOST_VALUES]] if many else _picture(one)
        if key == "row":
            return self._row(one)
        if key == "rows" and isinstance(one, list):
            made = [self._row(row) for row in one[:MOST_VALUES]]
            return [*made, f"… {len(one) - MOST_VALUES} more"] if len(one) > MOST_VALUES else made
        return self._value(one, key)

    def _row(self, row: Any) -> Any:
        """A row of a table; a column the model does not have may be a hidden one, misspelled."""
        if not isinstance(row, dict):
            return HIDDEN if self.names else self._value(row)
        told = {name: HIDDEN if self._is_stray(name) else one for name, one in row.items()}
        return self._value(told)

    def _is_stray(self, name: object) -> bool:
        return bool(self.names) and all(one.get("name") != name for one in self.inputs)

    def _tensors(self, said: Mapping[str, Any], member: str, tail: bytes) -> dict[str, Any]:
        """A v2 request or answer; binary tensors lie one behind the other in `tail`."""
        found: dict[str, Any] = {}
        at = 0
        for key, one in self._known("J", said).items():
            if key != member or not isinstance(one, list):
                found[key] = HIDDEN if self._hidden(key) else self._value(one, key)
                continue
            found[key] = made = []
            for tensor in one[:MOST_VALUES]:
                if not isinstance(tensor, dict):
                    made.append(self._value(tensor))
                    continue
                more = tensor.get("parameters")
                size = more.get("binary_data_size") if isinstance(more, dict) else None
                raw = None
                if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
                    raw, at = tail[at : at + size], at + size
                hidden = member == "inputs" and self._is_stray(tensor.get("name"))
                made.append(self._tensor(tensor, raw, hidden=hidden))
        return found

    def _tensor(self, tensor: Mapping[str, Any], raw: bytes | None, *, hidden: bool) -> dict[str, Any]:
        name, datatype, shape = (tensor.get(key) for key in ("name", "datatype", "shape"))
        # an input the model does not have may be any text: it is shown, but as one
        kept = {"name": self._value(name), "datatype": self._value(datatype), "shape": self._value(shape)}
        expected = next((one for one in self.inputs if one.get("name") == name), {})
        data: Any = tensor.get("data")
        if hidden or self._hidden(name) or (self._hides_all and name == self.inputs[0].get("name")):
            return kept | {"data": HIDDEN}
        if self._is_picture(shape) or self._is_picture(expected.get("shape")):
            return kept | {"sha256": _sha256(raw if raw is not None else _plain(data))}
        if raw is None:
            return kept | {"data": self._value(data)}
        values = _unpacked(raw, str(datatype))
        return kept | ({"sha256": _sha256(raw)} if values is None else {"data": self._value(values)})

    def _value(self, value: Any, key: str = "", depth: int = 0) -> Any:
        """Any JSON, masked."""
        if depth > MOST_DEPTH:
            return HIDDEN
        if isinstance(value, dict):
            return {
                self._word(str(name)): HIDDEN if self._hidden(name) else self._value(one, name, depth + 1)
                for name, one in list(value.items())[: 4 * MOST_VALUES]
            }
        if isinstance(value, list):
            made = [self._value(one, key, depth + 1) for one in value[:MOST_VALUES]]
            return [*made, f"… {len(value) - MOST_VALUES} more"] if len(value) > MOST_VALUES else made
        if isinstance(value, str):
            return self._word(value)
        if self.texts and isinstance(value, int | float) and not isinstance(value, bool):
            whole = abs(value) < 1e300 and float(value).is_integer()
            return HIDDEN if whole and abs(value) >= 10 ** (LONG_DIGITS - 1) else value
        return value

    def _word(self, said: str) -> str:
        return text(said) if self.texts else shortened(said)


def _hide_digits(found: re.Match[str]) -> str:
    return found[0] if _DATE.fullmatch(found[0]) else HIDDEN


def _bounded(kept: Any, body: bytes) -> Any:
    try:
        size = len(json.dumps(kept, ensure_ascii=False))
    except (ValueError, RecursionError):
        return _unread(body)
    return kept if size <= MOST_KEPT else {"left_out": "too long", **_unread(body)}


def _unread(body: bytes) -> dict[str, Any]:
    return {"bytes": len(body), "sha256": _sha256(body)}


def _picture(one: Any) -> dict[str, Any]:
    """Shape and hash: of nested lists of pixels, or of a file in base64."""
    shape, inner = [], one
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    return {"shape": shape or None, "sha256": _sha256(_plain(one))}


def _files(body: bytes, kind: str) -> list[dict[str, Any]]:
    """Shape and hash of each image file that was sent."""
    if kind.lower().startswith("image/"):
        return [_file(body)]
    head = b"Content-Type: " + kind.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"")
    form = BytesParser(policy=HTTP).parsebytes(head + b"\r\n\r\n" + body)
    if not form.is_multipart():
        return [_unread(body)]
    contents = [part.get_payload(decode=True) for part in list(form.iter_parts())[:MOST_VALUES]]
    return [_file(content) for content in contents if isinstance(content, bytes)]


def _file(content: bytes) -> dict[str, Any]:
    shape = None
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as opened:  # reads the head, not the pixels
            shape = [opened.height, opened.width]
    return {"shape": shape, **_unread(content)}


def _joined(lines: bytes) -> str:
    """The text of a stream, from its pieces, one JSON a line."""
    parts = []
    for one in lines.split(b"\n"):
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError, AttributeError):
            choice = json.loads(one)["choices"][0]
            parts.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
    return "".join(str(one) for one in parts)


def _unpacked(raw: bytes, datatype: str) -> list[Any] | None:
    """The values of a binary tensor; None where they cannot be told."""
    if datatype == "BYTES":
        texts: list[Any] = []
        at = 0
        while at + 4 <= len(raw) and len(texts) <= MOST_VALUES:
            (size,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + size].decode("utf-8", "replace"))
            at += 4 + size
        return texts
    letter = _BINARY.get(datatype)
    if letter is None:
        return None
    count = len(raw) // struct.calcsize(f"<{letter}")
    return list(struct.unpack_from(f"<{count}{letter}", raw))


def _plain(value: Any) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else json.dumps(value).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
