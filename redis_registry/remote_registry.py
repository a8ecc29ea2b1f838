"""The front doors for workers that don't reach Redis: they announce through controllers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from redis_registry.core.inputs import checked
from redis_registry.errors import RegistryClosed
from redis_registry.model import ModelInstance
from redis_registry.remote import Controllers, RemoteSettings
from redis_registry.roles.sending.announcing import (
    Announcement,
    SyncAnnouncement,
    new_life,
)
from redis_registry.roles.sending.life import HowToAnnounce, Life
from redis_registry.roles.sending.senders import Senders

__all__ = ["RemoteRegistry", "SyncRemoteRegistry"]


class _Remote:
    """What both faces are made of.

    Args:
        controllers: URLs of controllers; ``None``: from ``REDIS_REGISTRY_CONTROLLERS``.
        **options: The other fields of :class:`~redis_registry.remote.RemoteSettings`.

    Raises:
        ConfigurationError: A setting is unknown or not acceptable, or the HTTP client is not
            installed.
    """

    def __init__(
        self, controllers: Sequence[str] | None = None, **options: Any
    ) -> None:
        if controllers is not None:
            options["controllers"] = controllers
        self.settings = RemoteSettings.of(**options)
        self._senders = Senders(Controllers(self.settings))
        self._closed = False

    def _life(self, instance: ModelInstance, how: HowToAnnounce) -> Life:
        if self._closed:
            msg = "the registry was closed: build a new one, or enter it again"
            raise RegistryClosed(msg)
        timeout = checked(instance).heartbeat_timeout_secs
        if timeout is None:  # said with each call, whatever the controllers' own is
            timeout = self.settings.heartbeat_timeout_secs
            instance = instance.model_copy(update={"heartbeat_timeout_secs": timeout})
        return new_life(timeout, instance, how, urls=self.settings.controllers)

    def _close(self) -> None:
        self._closed = True
        self._senders.stop()


class RemoteRegistry(_Remote):
    """Announces instances through controllers, for event loops.

    A controller that is dead or hung is left for the next one within the same heartbeat.

    Example:
        >>> registry = RemoteRegistry(["http://a:8000", "http://b:8000"])
        >>> async with registry, registry.announce(instance) as announced:
        ...     await announced.ready()
    """

    async def __aenter__(self) -> Self:
        self._closed = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop speaking for announced instances, without goodbye, and close the connections."""
        await asyncio.to_thread(self._close)

    def announce(
        self, instance: ModelInstance, **how: Unpack[HowToAnnounce]
    ) -> Announcement:
        """As :meth:`redis_registry.RedisModelRegistry.announce`."""
        life = self._life(instance, how)
        return Announcement(
            life,
            self._senders.of(life),
            patience_secs=self.settings.operation_timeout_secs,
        )


class SyncRemoteRegistry(_Remote):
    """Announces instances through controllers, for threads."""

    def __enter__(self) -> Self:
        self._closed = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """As :meth:`RemoteRegistry.aclose`."""
        self._close()

    def announce(
        self, instance: ModelInstance, **how: Unpack[HowToAnnounce]
    ) -> SyncAnnouncement:
        """As :meth:`RemoteRegistry.announce`."""
        life = self._life(instance, how)
        return SyncAnnouncement(
            life,
            self._senders.of(life),
            patience_secs=self.settings.operation_timeout_secs,
        )
