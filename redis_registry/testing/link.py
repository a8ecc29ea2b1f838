"""One call to one server, without a driver: what these servers need to be set up and asked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import BinaryIO, cast

from redis_registry.errors import EmbeddedServerError

__all__ = ["Reply", "Said", "ask"]

Reply = str | int | list["Reply"] | None
"""A reply; bytes that are no UTF-8 come as surrogate escapes."""


class Said(EmbeddedServerError):
    """The server answered with an error; the message is its own."""


def ask(dial: Callable[[], socket.socket], *commands: tuple[str | int, ...]) -> Reply:
    """Send commands on a new connection; the reply to the last one.

    Raises:
        Said: One of them was answered with an error.
        OSError: The server can't be reached, said nothing within the socket's timeout, or is
            none of Redis's kind.
    """
    with dial() as link, cast("BinaryIO", link.makefile("rwb")) as stream:
        reply: Reply = None
        for words in commands:
            stream.write(_encoded(words))
            stream.flush()
            reply = _decoded(stream)
        return reply


def _encoded(words: tuple[str | int, ...]) -> bytes:
    texts = [str(word).encode(errors="surrogateescape") for word in words]
    parts = [b"$%d\r\n%s\r\n" % (len(text), text) for text in texts]
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


def _decoded(stream: BinaryIO) -> Reply:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        msg = "the server closed the connection"
        raise ConnectionResetError(msg)
    kind, text = line[:1], line[1:-2].decode(errors="surrogateescape")
    if kind == b"-":
        raise Said(text)
    if kind == b"+":
        return text
    if kind not in (b":", b"$", b"*"):
        msg = f"no Redis answers here: {line[:40]!r}"
        raise ConnectionError(msg)
    number = int(text)
    if kind == b":":
        return number
    if number < 0:
        return None
    if kind == b"*":
        return [_decoded(stream) for _ in range(number)]
    return stream.read(number + 2)[:-2].decode(errors="surrogateescape")
