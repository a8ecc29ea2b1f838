"""Uvicorn's HTTP protocol, sending the head and the body of a response in one system call.

Uvicorn writes them one after the other, and each write is a system call of its own: a quarter of
what a heartbeat costs a replica.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["OneWriteProtocol"]


class _OneWrite:
    """A transport that sends what is written in one turn of the loop in one piece."""

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        if self._parts:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(whole)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's."""
        return getattr(self._transport, name)


class OneWriteProtocol(HttpToolsProtocol):
    """What ``uvicorn.Config(http=…)`` takes."""

    def connection_made(self, transport: Any) -> None:
        """Put the collecting transport in between."""
        super().connection_made(_OneWrite(transport, self.loop))  # pyright: ignore[reportArgumentType]  a duck
