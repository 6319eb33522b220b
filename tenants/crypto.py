"""Per-tenant data keys and authenticated encryption that streams.

A data key (AES-256) is made per tenant and kept wrapped by the master key (AES-256-GCM, the tenant's id as
associated data), so a row copied to another tenant does not open. Files are cut into 1 MiB chunks, each
sealed with nonce = prefix (7 bytes) + counter (4) + last flag (1): the STREAM construction (Hoang,
Reyhanitabar, Rogaway, Vizar, 2015), so chunks cannot be reordered, dropped or cut short unnoticed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

MAGIC = b"TAU1"
CHUNK_BYTES = 1024 * 1024
_TAG_BYTES = 16
_PREFIX_BYTES = 7


class Sealed(ValueError):
    """This data does not open: it was changed, cut short, or belongs to another tenant or key."""


def new_data_key() -> bytes:
    return AESGCM.generate_key(bit_length=256)


def wrap_key(data_key: bytes, *, tenant_id: str, master: str | None = None) -> bytes:
    """Seal a tenant's data key with the master key."""
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(_master(master)).encrypt(nonce, data_key, tenant_id.encode())


def unwrap_key(wrapped: bytes, *, tenant_id: str, master: str | None = None) -> bytes:
    try:
        return AESGCM(_master(master)).decrypt(wrapped[:12], wrapped[12:], tenant_id.encode())
    except InvalidTag:
        text = "The master key does not open this tenant's key; is TAUON_MASTER_KEY the right one?"
        raise Sealed(text) from None


def seal(data_key: bytes, plain: bytes, *, context: str) -> bytes:
    """Encrypt a small secret; `context` (table, field, row) must be the same on opening."""
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(data_key).encrypt(nonce, plain, context.encode())


def unseal(data_key: bytes, sealed: bytes, *, context: str) -> bytes:
    try:
        return AESGCM(data_key).decrypt(sealed[:12], sealed[12:], context.encode())
    except InvalidTag:
        raise Sealed("This secret does not open with the tenant's key.") from None


def seal_stream(data_key: bytes, chunks: Iterable[bytes], *, context: str) -> Iterator[bytes]:
    """Encrypt a stream of any length holding one chunk in memory."""
    cipher, prefix = AESGCM(data_key), secrets.token_bytes(_PREFIX_BYTES)
    yield MAGIC + prefix
    counter, held = 0, b""
    for piece in _rechunk(chunks):
        if held:
            yield cipher.encrypt(_nonce(prefix, counter, last=False), held, context.encode())
            counter += 1
        held = piece
    yield cipher.encrypt(_nonce(prefix, counter, last=True), held, context.encode())


def unseal_stream(data_key: bytes, chunks: Iterable[bytes], *, context: str) -> Iterator[bytes]:
    """Decrypt what `seal_stream` made. Raises Sealed at the first chunk that is not authentic."""
    cipher = AESGCM(data_key)
    buffer = b""
    header, counter = None, 0
    size = CHUNK_BYTES + _TAG_BYTES
    for piece in chunks:
        buffer += piece
        if header is None and len(buffer) >= len(MAGIC) + _PREFIX_BYTES:
            if not buffer.startswith(MAGIC):
                raise Sealed("This file was not sealed by Tauon.")
            start = len(MAGIC) + _PREFIX_BYTES
            header, buffer = buffer[len(MAGIC) : start], buffer[start:]
        # keep at least one byte more than a chunk, so that the last chunk is known to be the last
        while header is not None and len(buffer) > size:
            yield _open(cipher, header, counter, buffer[:size], context, last=False)
            buffer, counter = buffer[size:], counter + 1
    if header is None:
        raise Sealed("This file is too short to have been sealed by Tauon.")
    yield _open(cipher, header, counter, buffer, context, last=True)


def _open(cipher: AESGCM, prefix: bytes, counter: int, chunk: bytes, context: str, *, last: bool) -> bytes:
    try:
        return cipher.decrypt(_nonce(prefix, counter, last=last), chunk, context.encode())
    except InvalidTag:
        raise Sealed("This file was changed, cut short, or belongs to another tenant.") from None


def _nonce(prefix: bytes, counter: int, *, last: bool) -> bytes:
    return prefix + counter.to_bytes(4, "big") + bytes([last])


def _rechunk(chunks: Iterable[bytes]) -> Iterator[bytes]:
    buffer = bytearray()
    for piece in chunks:
        buffer += piece
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)


def _master(value: str | None) -> bytes:
    return hashlib.sha256((value or settings.MASTER_KEY).encode()).digest()
