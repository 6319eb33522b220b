"""Text classification by a small transformer: characters in their order, any language, no word list."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec
from trainer.data import Columns, Rows
from trainer.recipes import text
from trainer.tasks import CLASSIFICATION as TASK

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "read", "signature"]

GRAPH_INPUT = "ids"
LENGTH = 64  # characters; the rest of a longer text is not read
SEEN_AT_LEAST = 2  # in training; nothing can be learned of a character seen once
MOST = 8000  # different characters
PADDING, UNKNOWN = 0, 1

signature, batch = text.signature, text.batch


def read(folder: Path, data: DataSpec) -> Rows:
    return text.read(folder, data)


def fit(inputs: Columns) -> dict[str, Any]:
    """The characters of the training texts, the commonest first."""
    counts: Counter[str] = Counter()
    for value in inputs["text"]:
        counts.update(_folded(str(value), LENGTH))
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    known = [character for character, count in common if count >= SEEN_AT_LEAST]
    return {"characters": "".join(known[:MOST]), "length": LENGTH}


def encode(transform: Mapping[str, Any], inputs: Columns) -> npt.NDArray[np.generic]:
    place = {character: number + 2 for number, character in enumerate(transform["characters"])}
    texts = inputs["text"]
    encoded = np.empty(len(texts), dtype=object)
    for row, value in enumerate(texts):
        ids = [place.get(character, UNKNOWN) for character in _folded(str(value), int(transform["length"]))]
        encoded[row] = np.asarray(ids or [UNKNOWN], dtype=np.int64)
    return encoded


def _folded(value: str, length: int) -> str:
    """One way of writing for each character: full and half width, capitals and small ones are the same."""
    return " ".join(unicodedata.normalize("NFKC", value[: 4 * length]).casefold().split())[:length]
