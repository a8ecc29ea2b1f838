"""One registry object: built without I/O, bound to a loop by its first call, closed once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from redis_registry.core.coalescer import Coalescer
from redis_registry.core.inputs import actor
from redis_registry.errors import ConfigurationError
from redis_registry.roles.checker import Checker
from redis_registry.roles.checker_status import CheckerStatus
from redis_registry.roles.following.hub import Hub
from redis_registry.roles.reserving import Reserver
from redis_registry.roles.sending.channel import RedisChannel
from redis_registry.roles.sending.senders import Senders
from redis_registry.settings import RegistrySettings
from redis_registry.store.executor import AsyncExecutor
from redis_registry.store.operations import Operations
from redis_registry.store.replies import Status
from redis_registry.store.sync_executor import SyncExecutor
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["Base"]


class Base:
    """What all sides of the front door stand on: settings, connections, the checker."""

    def __init__(
        self,
        client: Any = None,
        *,
        settings: RegistrySettings | None = None,
        run_checker: bool = True,
        telemetry: Telemetry = DEAF,
        **options: Any,
    ) -> None:
        if settings is not None and options:
            msg = f"give settings or options, not both: {', '.join(options)}"
            raise ConfigurationError(msg)
        self.settings = settings or RegistrySettings.of(**options)
        self.name = actor("registry")
        self._operations = Operations(
            self.settings, actor=self.name, telemetry=telemetry
        )
        self._executor = AsyncExecutor(
            self.settings, client=client, telemetry=telemetry
        )
        self._sync_executor = SyncExecutor(
            self.settings, twin_of=client, telemetry=telemetry
        )
        self._checker = (
            Checker(
                self._operations,
                self._executor,
                holder=self.name,
                telemetry=telemetry,
            )
            if run_checker
            else None
        )
        self._urls = [] if client is not None else [self.settings.url]
        self._senders = Senders(
            RedisChannel(
                self.settings,
                self._sync_executor,
                actor=self.name,
                reopens=client is None,
            )
        )
        self._reserver = Reserver(self._operations, self._sync_executor, telemetry)
        self._coalescer: Coalescer | None = None
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._binding = threading.Lock()

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        run_checker: bool = True,
        telemetry: Telemetry = DEAF,
        **options: Any,
    ) -> Self:
        """Build a registry that connects to ``url`` by itself.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://``, ``valkeys://``,
                ``redis+sentinel://`` or ``redis+cluster://``; see docs/how-to/topologies.md.
            run_checker: See the class.
            telemetry: See the class.
            **options: ``namespace``, ``heartbeat_interval_secs`` (how often the checker sweeps,
                at the latest), ``heartbeat_timeout_secs`` (silence after which an instance is
                dead) and the other fields of
                :class:`~redis_registry.settings.RegistrySettings`.

        Raises:
            ConfigurationError: A setting is unknown or not acceptable.
        """
        return cls(run_checker=run_checker, telemetry=telemetry, url=url, **options)

    async def __aenter__(self) -> Self:
        self._executor.reopen()
        self._sync_executor.reopen()
        self._bind()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the checker, give its leases and all reservations back, close the connections."""
        if self._coalescer is not None:
            coalescer, self._coalescer = self._coalescer, None
            if coalescer.loop is asyncio.get_running_loop():
                await coalescer.aclose()
        here = asyncio.get_running_loop()
        hub = self._hubs.pop(here, None)
        if hub is not None:
            await hub.aclose()
        for loop in {*self._hubs, *self._executor.loops} - {here}:
            _elsewhere(loop, self._leave(self._hubs.pop(loop, None)))
        if self._checker is not None:
            await self._checker.aclose()
        if self._reserver.holder.alive:
            await asyncio.to_thread(self._reserver.holder.stop)
        if self._senders.alive:
            await asyncio.to_thread(self._senders.stop)
        await self._executor.aclose()
        self._sync_executor.close()

    async def _leave(self, hub: Hub | None) -> None:
        """End what follows on the running loop, and close its connections."""
        if hub is not None:
            await hub.aclose()
        await self._executor.leave()

    def _bind(self) -> None:
        """Start the checker on the running loop, unless it lives already."""
        self._executor.check_open()
        if self._checker is not None and not self._checker.alive():
            with self._binding:
                if not self._checker.alive():
                    self._checker.start()

    def _hub(self) -> Hub:
        """What follows the changes on the running loop."""
        self._bind()
        loop = asyncio.get_running_loop()
        for ended in [other for other in self._hubs if other.is_closed()]:
            del self._hubs[ended]
        hub = self._hubs.get(loop)
        if hub is None:
            hub = self._hubs[loop] = Hub(self._operations, self._executor)
        return hub

    async def status(self, *, deadline_secs: float | None = None) -> list[Status]:
        """What each partition knows of itself: lease, recovery, guard, counts.

        Args:
            deadline_secs: Longest wait; ``None``: the settings'.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        operation = self._operations.status()
        return await self._executor.run(operation, deadline_secs=deadline_secs)

    @property
    def checker(self) -> CheckerStatus | None:
        """How this object's checker is doing; ``None``: it has none."""
        return self._checker.status if self._checker is not None else None


def _elsewhere(
    loop: asyncio.AbstractEventLoop, leaving: Coroutine[Any, Any, None]
) -> None:
    """Have it done on another loop; nobody waits for it, for that loop may be busy."""
    if loop.is_running():
        with suppress(RuntimeError):  # it was closed just now
            asyncio.run_coroutine_threadsafe(leaving, loop)
            return
    leaving.close()
