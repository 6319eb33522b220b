"""Text classification: hashed character n-grams and words; the same code reads English and Chinese."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.contract import DataSpec
from trainer.data import Columns, Rows, column, read_table, required, words
from trainer.tasks import CLASSIFICATION as TASK

__all__ = ["GRAPH_INPUT", "TASK", "batch", "encode", "fit", "read", "signature"]

GRAPH_INPUT = "ids"
NGRAMS = (1, 2, 3)
MAX_CHARACTERS = 1000  # the rest of a longer text is not read
MIN_BUCKETS = 2**10
MAX_BUCKETS = 2**17


def read(folder: Path, data: DataSpec) -> Rows:
    table, places = read_table(folder, data)
    texts = required(column(table, data.text, "text", data), places, data.text or "")
    labels = required(column(table, data.label, "label", data), places, data.label or "")
    return Rows(inputs={"text": words(texts)}, labels=words(labels))


def fit(inputs: Columns) -> dict[str, Any]:
    """Choose a table twice as long as there are different n-grams, so that few share a bucket."""
    seen: set[str] = set()
    for value in inputs["text"]:
        seen.update(_features(str(value), NGRAMS, MAX_CHARACTERS))
    buckets = MIN_BUCKETS
    while buckets < 2 * len(seen) and buckets < MAX_BUCKETS:
        buckets *= 2
    return {"buckets": buckets, "ngrams": list(NGRAMS), "max_characters": MAX_CHARACTERS}


def signature(transform: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]


def encode(transform: Mapping[str, Any], inputs: Columns) -> npt.NDArray[np.generic]:
    texts = inputs["text"]
    encoded = np.empty(len(texts), dtype=object)
    buckets, ngrams, limit = int(transform["buckets"]), transform["ngrams"], int(transform["max_characters"])
    for row, value in enumerate(texts):
        # 0 is the padding, so buckets count from 1
        ids = [1 + zlib.crc32(part.encode()) % buckets for part in _features(str(value), ngrams, limit)]
        encoded[row] = np.asarray(ids or [0], dtype=np.int64)
    return encoded


def batch(encoded: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    longest = max(len(ids) for ids in encoded)
    ids_BL = np.zeros((len(encoded), longest), dtype=np.int64)  # batch, length
    for row, ids in enumerate(encoded):
        ids_BL[row, : len(ids)] = ids
    return ids_BL


def folded_words(text: str) -> list[str]:
    """Words without differences of case and width."""
    return unicodedata.normalize("NFKC", text).casefold().split()


def _features(text: str, ngrams: list[int] | tuple[int, ...], limit: int) -> list[str]:
    """Character n-grams of the folded text, and its longer words, marked to differ from n-grams."""
    folded = " ".join(folded_words(text[:limit]))
    parts = [folded[at : at + size] for size in ngrams for at in range(len(folded) - size + 1)]
    parts += [f"\x00{word}" for word in folded.split(" ") if len(word) > max(ngrams)]
    return [part for part in parts if part != " "]
