"""What a sender speaks through: to Redis itself, or to a controller by HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from redis_registry.errors import ConfigurationError
from redis_registry.model import Beat, Load, ModelInstance, Readiness
from redis_registry.remote import Controllers, RemoteSettings
from redis_registry.settings import RegistrySettings
from redis_registry.store.operations import UNKNOWN, Operation, Operations
from redis_registry.store.sync_executor import SyncExecutor
from redis_registry.wire.keys import partition_of

__all__ = ["Channel", "RedisChannel", "Said", "open_channel"]

T = TypeVar("T")

Said = tuple[Readiness, str]
"""A readiness and its reason."""


class Channel(Protocol):
    """One attempt a call: pauses between attempts are the sender's business.

    Every call raises ``RegistryUnavailable`` when nobody answered, and ``Superseded`` when a
    newer life has the address.

    Attributes:
        advised_interval_secs: The registry asks to be called this seldom; ``None``: it doesn't.
    """

    advised_interval_secs: float | None

    def register(self, instance: ModelInstance, order: int) -> Said:
        """Register with all it carries; what is on record now."""
        ...

    def ready(
        self, instance: ModelInstance, readiness: Readiness, reason: str, order: int
    ) -> Said | None:
        """Say a readiness; what is on record now, or ``None``: it must register."""
        ...

    def deregister(self, instance: ModelInstance, *, remove: bool) -> None:
        """Say goodbye; it stays listed as unhealthy unless it is to be removed."""
        ...

    def heartbeats(
        self, instances: Sequence[ModelInstance], loads: Sequence[Load]
    ) -> list[Beat]:
        """Beat for all of them, with one load each."""
        ...

    def part(self, instance: ModelInstance) -> Channel:
        """The channel that is for an instance: this one, or one of its part of the registry.

        Always the same one for the same part, which can be away while others are not.
        """
        ...

    def described(self) -> Mapping[str, Any]:
        """All that :func:`open_channel` in another process needs, as JSON would have it.

        Raises:
            ConfigurationError: It can't be opened again.
        """
        ...

    def close(self) -> None:
        """Give up its connections."""
        ...


class RedisChannel:
    """Straight to Redis.

    Args:
        settings: The registry's.
        executor: Whose connections to use; its owner closes it. ``None``: one of its own.
        actor: Who acts, for the events.
        reopens: Whether another process can connect as this one does.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        executor: SyncExecutor | None = None,
        *,
        actor: str,
        reopens: bool = True,
    ) -> None:
        self.advised_interval_secs: float | None = None
        self._settings = settings
        self._executor = executor or SyncExecutor(settings)
        self._parts: dict[int | str, RedisChannel] = {}
        # Operations of its own: what they remember is for one thread.
        self._operations = Operations(settings, actor=actor)
        self._reopens = reopens

    def register(self, instance: ModelInstance, order: int) -> Said:
        """As :meth:`Channel.register`."""
        self._ask(self._operations.register(instance, order))
        return instance.readiness, instance.reason or ""

    def ready(
        self, instance: ModelInstance, readiness: Readiness, reason: str, order: int
    ) -> Said | None:
        """As :meth:`Channel.ready`."""
        known = self._ask(self._operations.ready(instance, readiness, reason, order))
        return None if known == UNKNOWN else (readiness, reason)

    def deregister(self, instance: ModelInstance, *, remove: bool) -> None:
        """As :meth:`Channel.deregister`."""
        self._ask(self._operations.deregister(instance, remove=remove))

    def heartbeats(
        self, instances: Sequence[ModelInstance], loads: Sequence[Load]
    ) -> list[Beat]:
        """As :meth:`Channel.heartbeats`."""
        return self._ask(self._operations.heartbeats(instances, loads, again=True))

    @property
    def partitions(self) -> int | None:
        """How many the registry has, once Redis has told."""
        return self._operations.partitions

    def part(self, instance: ModelInstance) -> RedisChannel:
        """As :meth:`Channel.part`: of a Cluster, one for each partition, which is at one node."""
        if not self._executor.spread:
            return self
        part = self._part_of(instance.model_name)
        if part not in self._parts:
            new = RedisChannel(
                self._settings, self._executor, actor=self._operations.actor
            )
            self._parts.setdefault(part, new)
        return self._parts[part]

    def _part_of(self, model_name: str) -> int | str:
        """Its partition; while nobody knows how many there are, the model is one by itself."""
        told = (one.partitions for one in list(self._parts.values()))
        partitions = self._settings.partitions or next(filter(None, told), None)
        return partition_of(model_name, partitions) if partitions else model_name

    def described(self) -> Mapping[str, Any]:
        """As :meth:`Channel.described`."""
        if not self._reopens:
            msg = "sender='process' needs to know where Redis is: build the registry with from_url"
            raise ConfigurationError(msg)
        settings = self._settings.model_dump(mode="json")
        return {"redis": settings, "actor": self._operations.actor}

    def close(self) -> None:
        """As :meth:`Channel.close`; the executor is its owner's to close."""

    def _ask(self, operation: Operation[T]) -> T:
        # On the one connection that a worker has.
        return self._executor.run(operation, deadline_secs=0.0, lane="beat")


def open_channel(described: Mapping[str, Any]) -> Channel:
    """Open, in this process, what another one described."""
    if "redis" in described:
        settings = RegistrySettings.of(**described["redis"])
        return RedisChannel(settings, actor=described["actor"])
    return Controllers(RemoteSettings.of(**described["controllers"]))
