"""The front door for event loops; :mod:`redis_registry.sync_registry` is its twin for threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from redis_registry.core.coalescer import Coalescer
from redis_registry.core.inputs import actor, check_beats, checked, readable
from redis_registry.errors import ConfigurationError
from redis_registry.model import Beat, Load, ModelInstance, Readiness, superseded
from redis_registry.roles.announcing import Announcement, new_life
from redis_registry.roles.channel import RedisChannel
from redis_registry.roles.checker import Checker, CheckerStatus
from redis_registry.roles.life import HowToAnnounce
from redis_registry.roles.senders import Senders
from redis_registry.selection import pick
from redis_registry.settings import RegistrySettings
from redis_registry.store.executor import AsyncExecutor, SyncExecutor
from redis_registry.store.operations import UNKNOWN, Operations
from redis_registry.store.replies import Status
from redis_registry.telemetry import DEAF, Telemetry

__all__ = ["RedisModelRegistry"]


_SUPERSEDED = Beat.SUPERSEDED  # an enum's member costs a look-up


class RedisModelRegistry:
    """A registry of model instances on one Redis, for event loops.

    Building one does no I/O and needs no event loop; the first awaited call connects, on the
    loop it runs on, and starts the checker there.

    Example:
        >>> registry = RedisModelRegistry.from_url("redis://localhost:6379/0")
        >>> async with registry:
        ...     await registry.register_instance(instance)

    Args:
        client: A ready ``redis.asyncio`` client (fakeredis included); it stays yours to close.
            Without one, the registry connects to ``settings.url`` by itself.
        settings: How it behaves; without it, from ``options`` and ``REDIS_REGISTRY_*``.
        run_checker: Whether this process shares in sweeping; ``False`` for workers and pure
            readers.
        telemetry: An observer of counts and durations.
        **options: Fields of :class:`~redis_registry.settings.RegistrySettings`.

    Raises:
        ConfigurationError: A setting is unknown or not acceptable.
    """

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
        self._operations = Operations(self.settings, actor=self.name)
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
        self._coalescer: Coalescer | None = None
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
            url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://`` or ``valkeys://``.
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
        """Stop the checker, give its leases back and close the connections."""
        if self._coalescer is not None:
            coalescer, self._coalescer = self._coalescer, None
            if coalescer.loop is asyncio.get_running_loop():
                await coalescer.aclose()
        if self._checker is not None:
            await self._checker.aclose()
        if self._senders.alive:
            await asyncio.to_thread(self._senders.stop)
        await self._executor.aclose()
        self._sync_executor.close()

    def _bind(self) -> None:
        """Start the checker on the running loop, unless it lives already."""
        self._executor.check_open()
        if self._checker is not None and not self._checker.alive():
            with self._binding:
                if not self._checker.alive():
                    self._checker.start()

    async def register_instance(
        self,
        instance: ModelInstance,
        *,
        order: int = 0,
        deadline_secs: float | None = None,
    ) -> bool:
        """Register an instance, or revive and update the one at its address.

        A new one is stored with all its fields. A known one gets weight, prompt template, zone
        and metadata from ``instance`` and is healthy again; its ``enabled`` and
        ``check_healthy`` stay, unless a new incarnation registers.

        Args:
            instance: Who it is, with all it carries.
            order: A life may number what it says, from 1 on: a smaller number than the one on
                record came late.
            deadline_secs: Longest wait; ``None``: the settings'.

        Returns:
            ``True``.

        Raises:
            InvalidInstance: A field is not acceptable; nothing was stored.
            RegistryUnavailable: Redis did not answer in time.
            OutOfMemory: Redis takes nothing new.
        """
        operation = self._operations.register(checked(instance), order)
        self._bind()
        await self._executor.run(operation, deadline_secs=deadline_secs)
        return True

    async def deregister_instance(
        self, instance: ModelInstance, *, deadline_secs: float | None = None
    ) -> bool:
        """Make an instance unhealthy; it stays listed. Unknown: nothing happens.

        With ``instance.remove_from_registry`` it is removed at once.

        Returns:
            ``True``.

        Raises:
            Superseded: A newer incarnation lives there; nothing was changed.
            RegistryUnavailable: Redis did not answer in time.
        """
        checked(instance)
        self._bind()
        await self._executor.run(
            self._operations.deregister(
                instance, remove=bool(instance.remove_from_registry)
            ),
            deadline_secs=deadline_secs,
        )
        return True

    async def send_heartbeat(self, instance: ModelInstance) -> bool:
        """Say that an instance is alive; an unknown one is registered with all it carries.

        Concurrent calls of one process travel together.

        Returns:
            ``True``.

        Raises:
            Superseded: A newer incarnation lives there; nothing was changed.
            RegistryUnavailable: Redis did not answer in time.
        """
        if not isinstance(instance, ModelInstance):  # pyright: ignore[reportUnnecessaryIsInstance]
            checked(instance)
        coalescer = self._coalescer
        if coalescer is None or coalescer.loop is not asyncio.get_running_loop():
            self._bind()
            coalescer = self._coalescer = Coalescer(self._beat)
        if await coalescer.beat(instance) is _SUPERSEDED:
            raise superseded(instance)
        return True

    async def send_heartbeats(
        self,
        instances: Sequence[ModelInstance],
        loads: Sequence[Load] = (),
        *,
        whole: bool = True,
        deadline_secs: float | None = None,
    ) -> list[Beat]:
        """Say that many instances are alive, 1,000 a call (250 with their loads).

        Args:
            instances: Who is alive.
            loads: What each of them reports of its work; none, or one for each.
            whole: They carry all that belongs to them, so that an unknown one is registered.
            deadline_secs: Longest wait; ``None``: the settings'.

        Returns:
            For each: taken (also when it had to be registered), superseded or reregister.

        Raises:
            InvalidInstance: The number of loads doesn't fit.
            RegistryUnavailable: Redis did not answer in time.
        """
        check_beats(instances, loads)
        self._bind()
        operation = self._operations.heartbeats(instances, loads, whole=whole)
        return await self._executor.run(operation, deadline_secs=deadline_secs)

    async def set_readiness(
        self,
        instance: ModelInstance,
        readiness: Readiness,
        reason: str = "",
        *,
        order: int = 0,
        deadline_secs: float | None = None,
    ) -> bool:
        """Say whether an instance wants new work; only a ready one is selected.

        Args:
            instance: Which one; its ``incarnation`` says on whose behalf.
            readiness: What it is from now on.
            reason: Why, in plain words, of at most 500 characters.
            order: See :meth:`register_instance`.
            deadline_secs: Longest wait; ``None``: the settings'.

        Returns:
            Whether the registry knows it; ``False``: it must register.

        Raises:
            Superseded: A newer incarnation lives there, or this one has been deregistered.
            RegistryUnavailable: Redis did not answer in time.
        """
        operation = self._operations.ready(checked(instance), readiness, reason, order)
        self._bind()
        revision = await self._executor.run(operation, deadline_secs=deadline_secs)
        return revision != UNKNOWN

    async def _beat(self, instances: Sequence[ModelInstance]) -> list[Beat]:
        return await self._executor.run(self._operations.heartbeats(instances))

    async def get_all_instances(
        self, model_name: str, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """All instances of one model, in order of registration.

        Each is judged by its deadline at this moment, so a dead one is not healthy between two
        sweeps. Disabled ones are included.

        Args:
            model_name: Exact name; an unknown one has no instances.
            healthy_only: Leave out the unhealthy.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        name = readable(model_name)
        self._bind()
        if name is None:
            return []
        return await self._executor.run(
            self._operations.read(name, healthy_only=healthy_only)
        )

    async def get_all_model_instances(
        self, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """All instances of all models; see :meth:`get_all_instances`."""
        self._bind()
        return await self._executor.run(
            self._operations.read(None, healthy_only=healthy_only)
        )

    async def select_one_health_instance(self, model_name: str) -> ModelInstance | None:
        """One healthy and enabled instance, uniformly at random; ``None`` if there is none."""
        name = readable(model_name)
        self._bind()
        if name is None:
            return None
        chosen = pick(await self._executor.run(self._operations.sample(name)))
        if chosen is None:
            chosen = pick(await self.get_all_instances(name, healthy_only=True))
        return chosen

    def announce(
        self, instance: ModelInstance, **how: Unpack[HowToAnnounce]
    ) -> Announcement:
        """Register a new life of an instance and keep it alive until the block ends.

        It begins as ``starting``: say :meth:`~Announcement.ready` when it can work. A thread
        with connections of its own beats for all announced instances of this registry, also
        while the event loop is blocked. At the end it drains and deregisters.

        Example:
            >>> async with registry.announce(instance) as announced:
            ...     await announced.ready()
            ...     await serve()

        Args:
            instance: Who it is; without an ``incarnation`` it gets a new one. Its ``readiness``
                is taken when it was set.
            **how: Fields of :class:`~redis_registry.roles.life.LifeOptions`.

        Raises:
            InvalidInstance: Not an instance, an interval that can't keep it alive, or an address
                that others can't reach.
            RegistryClosed: The registry was closed.
        """
        self._executor.check_open()
        timeout = self.settings.heartbeat_timeout_secs
        life = new_life(timeout, instance, how, urls=self._urls)
        patience = self.settings.operation_timeout_secs
        return Announcement(life, self._senders.of(life), patience_secs=patience)

    def sync_get_all_instances(
        self, model_name: str, healthy_only: bool = False
    ) -> list[ModelInstance]:
        """As :meth:`get_all_instances`, for threads and for code inside a running loop.

        It blocks the calling thread for one round trip.
        """
        name = readable(model_name)
        if name is None:
            return []
        return self._sync_executor.run(
            self._operations.read(name, healthy_only=healthy_only)
        )

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
