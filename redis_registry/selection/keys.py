"""Hashes of keys and identities: the same in every process, host and Python version."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from redis_registry.errors import ConfigurationError
from redis_registry.model import Identity

__all__ = ["Key", "digest_of", "fraction", "key_bytes"]

Key = str | bytes

_IDENTITIES = 1 << 15  # whose digests are kept, for the next change of their model
_WHOLE = float(1 << 64)


def key_bytes(key: Key | None) -> bytes:
    """A key as bytes; a text and its UTF-8 are the same key.

    Raises:
        ConfigurationError: There is none.
    """
    if isinstance(key, str):
        return key.encode("utf-8", "surrogatepass")
    if key is None:
        raise ConfigurationError(
            "this policy chooses by a key: say key=, for example the session's name"
        )
    return key


@lru_cache(_IDENTITIES)
def digest_of(identity: Identity) -> bytes:
    """64 bytes that stand for an identity."""
    model, host, port = identity
    text = f"{len(model)}:{model}{len(host)}:{host}{port}"
    return blake2b(text.encode("utf-8", "surrogatepass")).digest()


def fraction(data: bytes) -> float:
    """A number from 0 up to 1 that stands for these bytes."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") / _WHOLE
