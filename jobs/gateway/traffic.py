"""Which revision answers a request: decided by the request itself, so that a retry meets the same one. Pure."""

from __future__ import annotations

from zlib import crc32

WHOLE = 10_000  # shares are basis points
STICKY = b"x-tauon-sticky"  # a caller's own word, such as a customer number: the same word, the same revision


def bucket(endpoint_id: str, word: str | bytes) -> int:
    """0..9999, evenly spread, the same for the same endpoint and word in every gateway."""
    said = word if isinstance(word, bytes) else word.encode()
    number = crc32(said, crc32(endpoint_id.encode()))
    # CRC32 is linear: words that follow each other would otherwise fall side by side
    number = (number ^ (number >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    number = (number ^ (number >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    return (number ^ (number >> 16)) % WHOLE


def falls_into(share: int, endpoint_id: str, word: str | bytes) -> bool:
    """Whether this request belongs to the `share` basis points that go elsewhere.

    Raising a share moves nobody back: who fell into 1 % also falls into 10 %.
    """
    return share > 0 and bucket(endpoint_id, word) < share
