"""One controller replica as a process: registry, checker and HTTP server, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import uvicorn

from redis_registry.embedded import EmbeddedServer
from redis_registry.errors import ConfigurationError
from redis_registry.http.api import api_routes
from redis_registry.http.app import Application
from redis_registry.http.doors.dbgpt import dbgpt_routes
from redis_registry.http.explain import explain_routes
from redis_registry.http.operators import operator_routes
from redis_registry.http.outcomes import outcome_routes
from redis_registry.http.protocol import OneWriteProtocol
from redis_registry.http.visitors import is_loopback
from redis_registry.http.workers import worker_routes
from redis_registry.registry import RedisModelRegistry
from redis_registry.settings import RegistrySettings
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["application", "serve"]

GRACE_SECS = 5
"""How long requests under way may take after a SIGTERM."""

_log = logging.getLogger(__name__)


def application(
    registry: RedisModelRegistry, *, names: Iterable[str] | None = None
) -> Application:
    """The ASGI application of a replica; the registry stays its owner's to close.

    Args:
        registry: What it speaks for.
        names: By which it is known; ``None``: by any.
    """
    return Application(
        [
            *api_routes(registry),
            *worker_routes(registry),
            *outcome_routes(registry),
            *operator_routes(registry),
            *explain_routes(registry),
            *dbgpt_routes(registry),
        ],
        names=names,
    )


class _Server(uvicorn.Server):
    """Uvicorn without its signal handling, which would end us by the signal, not with 0."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    def stop(self, number: int) -> None:
        """First signal: finish what is under way. Second: at once."""
        _log.info("stopping", extra={"signal": signal.Signals(number).name})
        self.force_exit = self.should_exit
        self.should_exit = True


@asynccontextmanager
async def _signals(server: _Server) -> AsyncGenerator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, server.stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        msg = f"can't listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        raise ConfigurationError(msg) from error


async def serve(
    settings: RegistrySettings,
    *,
    host: str,
    port: int,
    embedded: bool = False,
    known_as: Iterable[str] = (),
    telemetry: Telemetry = DEAF,
) -> None:
    """Run one replica until a signal ends it.

    Args:
        settings: Where Redis is and how the registry behaves.
        host: Address to listen on.
        port: Port to listen on.
        embedded: Start an own server (nothing is kept) instead of using ``settings.url``.
        known_as: Names by which clients reach it. On a loopback address, or where any is given,
            it answers only by these, by ``localhost`` and by addresses.
        telemetry: An observer of counts and durations.

    Raises:
        EmbeddedServerError: There is no server to embed.
        ConfigurationError: The port can't be had.
    """
    names = list(known_as)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listener(host, port))
        if embedded:
            server = await stack.enter_async_context(EmbeddedServer())
            settings = settings.model_copy(update={"url": server.url})
            _log.info("embedded server runs", extra={"url": server.url})
        registry = RedisModelRegistry(settings=settings, telemetry=telemetry)
        await stack.enter_async_context(registry)
        config = uvicorn.Config(
            application(registry, names=names if names or is_loopback(host) else None),
            host=host,
            port=port,
            http=OneWriteProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECS,
        )
        web = _Server(config)
        await stack.enter_async_context(_signals(web))
        _log.info(
            "controller starts",
            extra={"host": host, "port": port, "namespace": settings.namespace},
        )
        await web.serve(sockets=[listener])
    _log.info("controller stopped")
