"""What workers, and those who speak for them, say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Unpack

from redis_registry.core.coalescer import Coalescer
from redis_registry.core.inputs import check_beats, checked
from redis_registry.model import Beat, Load, ModelInstance, Readiness, superseded
from redis_registry.registry.base import Base
from redis_registry.roles.sending.announcing import Announcement, new_life
from redis_registry.roles.sending.life import HowToAnnounce
from redis_registry.store.operations import UNKNOWN

__all__ = ["WorkerSide"]

_SUPERSEDED = Beat.SUPERSEDED  # an enum's member costs a look-up


class WorkerSide(Base):
    """Register, beat, say readiness, deregister; or announce, which does it all."""

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
        if not isinstance(instance, ModelInstance):  # pyright: ignore[reportUnnecessaryIsInstance]  callers without a type checker
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
        operation = self._operations.heartbeats(
            instances, loads, whole=whole, again=not whole
        )
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
            **how: Fields of :class:`~redis_registry.roles.sending.life.LifeOptions`.

        Raises:
            InvalidInstance: Not an instance, an interval that can't keep it alive, or an address
                that others can't reach.
            RegistryClosed: The registry was closed.
        """
        self._executor.check_open()
        timeout = self.settings.heartbeat_timeout_secs
        life = new_life(timeout, instance, how, urls=self._urls)
        patience = self.settings.operation_timeout
        return Announcement(life, self._senders.of(life), patience_secs=patience)
