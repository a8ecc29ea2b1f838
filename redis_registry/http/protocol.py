"""Uvicorn's HTTP protocol with bounds on slow clients, sending head and body of a response in one call.

Uvicorn writes them one after the other, and each write is a system call of its own: a quarter of
what a heartbeat costs a replica. And it waits for ever for a client that says nothing, or that
sends its request, or reads the response, a byte at a time (Kludex/uvicorn #157).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_SECS", "MAX_HEAD_BYTES", "OneWriteProtocol"]

HEAD_SECS = 10.0
"""How long a client may take to send the head of a request, from the connection on."""

MAX_HEAD_BYTES = 128 * 1024
"""Of a request's line and headers; the longest query there may be is half of it."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


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

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _messages = 0
    _in_body = False
    _unsent = 0

    def connection_made(self, transport: Any) -> None:
        """Put the collecting transport in between; the first request is due."""
        super().connection_made(_OneWrite(transport, self.loop))  # pyright: ignore[reportArgumentType]  a duck
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take part of a request; a head that is begun must end, soon and somewhere."""
        before = self._messages
        super().data_received(data)
        if self.transport.is_closing():
            return
        if before == self._messages and not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
        answering = self.cycle and not self.cycle.response_complete
        if self._head_timer is None and not answering:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._in_body = True
        self._head_bytes = 0
        self._head_came()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body too."""
        self._in_body = False
        self._messages += 1
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing new has come for a while; one who still reads the last response has time."""
        left = self.transport.get_write_buffer_size()
        if left and left == self._unsent:
            self.transport.abort()
        elif left:
            self._unsent = left
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECS, self.transport.abort)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
