"""A TCP proxy that does to connections what networks do; in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from types import TracebackType
from typing import Self

from redis_registry.errors import EmbeddedServerError

__all__ = ["Proxy"]

_CHUNK = 65_536
_REPLAY_SECS = 5.0


class Proxy:
    """Passes connections on to a port; a context manager.

    Its attributes may be set at any time, by any thread; they hold for all its connections.

    Example:
        >>> with Standalone() as server, Proxy(server.port) as proxy:
        ...     registry = RedisModelRegistry.from_url(proxy.url)
        ...     proxy.swallowing = True  # from now on: executed, never answered

    Args:
        target: The port.
        host: Its host.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        target: Where new connections go.
        refusing: New connections are closed at once.
        frozen: Nothing passes, either way, and nobody is told; what was sent waits.
        swallowing: Requests pass, replies are thrown away: executed, never answered. A connection
            that has lost a reply so gets no later one either, for TCP skips nothing.
        delay_secs: How late everything is, each way.
        swallowed: How many replies were thrown away; a pipeline's may count as one.
        cuts: How many connections were ended by :meth:`cut` and :meth:`lose_replies`.
        requests: What clients sent last, oldest first, as it arrived (at most 64 KiB each).
    """

    def __init__(self, target: int, *, host: str = "127.0.0.1") -> None:
        self.target = target
        self.host = host
        self.port = 0
        self.refusing = False
        self.frozen = False
        self.swallowing = False
        self.delay_secs = 0.0
        self.swallowed = 0
        self.cuts = 0
        self.requests: deque[bytes] = deque(maxlen=1000)
        self._losses = 0
        self._links: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, as a ``redis://`` URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """End all connections under way, as a network would: at once and without a word."""
        self._loop.call_soon_threadsafe(self._cut)

    def lose_replies(self, count: int = 1) -> None:
        """Cut a connection when its reply comes, as often as told: executed, never answered.

        Args:
            count: How many replies; a pipeline's replies may come as one.
        """
        self._loop.call_soon_threadsafe(setattr, self, "_losses", count)

    def replay(self, containing: bytes = b"") -> bytes:
        """Send a request again, on a new connection, as if it had been delivered twice.

        Args:
            containing: Which: the last one in which this occurs.

        Returns:
            The reply that came, as it came; nobody else sees it.

        Raises:
            EmbeddedServerError: No such request has passed.
        """
        fitting = [request for request in self.requests if containing in request]
        if not fitting:
            msg = (
                f"no request with {containing!r} has passed, so there is none to replay"
            )
            raise EmbeddedServerError(msg)
        place = (self.host, self.target)
        with socket.create_connection(place, timeout=_REPLAY_SECS) as link:
            link.sendall(fitting[-1])
            return link.recv(_CHUNK)

    def _cut(self) -> None:
        links, self._links = self._links, set()
        self.cuts += len(links)
        for link in links:
            link.transport.abort()

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._server.close()
        self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            there, beyond = await asyncio.open_connection(self.host, self.target)
        except OSError:
            writer.transport.abort()
            return
        self._links.add(writer)
        ways = (self._requests(reader, beyond), self._replies(there, writer))
        try:
            await asyncio.gather(*ways)
        except (OSError, asyncio.CancelledError):
            pass  # at the end of the loop too: asyncio's own callback would trip over it
        finally:
            self._links.discard(writer)
            writer.transport.abort()
            beyond.transport.abort()

    async def _requests(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await client.read(_CHUNK):
                await self._late()
                self.requests.append(data)
                server.write(data)
                await server.drain()
            server.write_eof()  # no abort: what the client sent before it went must arrive
            return
        server.transport.abort()

    async def _replies(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        lost = False
        with contextlib.suppress(ConnectionError):
            while data := await server.read(_CHUNK):
                await self._late()
                if self._losses:
                    self._losses -= 1
                    self.cuts += 1
                    self._links.discard(client)
                    break
                lost = lost or self.swallowing
                self.swallowed += lost
                if not lost:
                    client.write(data)
                    await client.drain()
        client.transport.abort()

    async def _late(self) -> None:
        """Hold what has arrived as long as it must wait."""
        if self.delay_secs:
            await asyncio.sleep(self.delay_secs)
        while self.frozen:  # noqa: ASYNC110  any thread may set it
            await asyncio.sleep(0.005)
