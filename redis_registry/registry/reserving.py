"""What those ask who send work: a place on one instance, agreed by all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from redis_registry.core.inputs import readable
from redis_registry.errors import NoneAvailable, RegistryError
from redis_registry.model import Identity
from redis_registry.registry.base import Base
from redis_registry.roles.reserving import (
    RELEASE_SECS,
    GiveCandidates,
    Reservation,
    check_policy,
)

__all__ = ["ReserveSide"]


class ReserveSide(Base):
    """Reserve, and see what is reserved."""

    def reserve(
        self,
        model_name: str,
        *,
        policy: str = "least_in_flight",
        wait_secs: float = 0.0,
        candidates: GiveCandidates | None = None,
    ) -> AbstractAsyncContextManager[Reservation]:
        """A place on one instance until the block ends, picked and counted by Redis in one moment.

        Of the instances that may receive work and are below their capacity the one with the
        least in flight for its weight is picked, of equals the one picked least recently; every
        replica counts the same numbers. An instance's capacity is what it last reported
        (``load.capacity``), else ``metadata["capacity"]``, else there is no limit.

        Example:
            >>> async with registry.reserve("llama3@llm", wait_secs=2.0) as reservation:
            ...     await call(reservation.instance)

        Args:
            model_name: Exact name.
            policy: ``least_in_flight``: all candidates are compared (64 at random of more);
                ``power_of_two``: two at random, and all of them if both are full.
            wait_secs: When there is none now, wait for one for at most this long.
            candidates: Gives the instances to choose from, decided by the caller, say from a
                view; the one picked must still be alive and ready. ``None``: all that may
                receive work, read again every 0.25 s.

        Raises:
            NoneAvailable: There is none now (on entering), with the reason and the wait that
                would help.
            RegistryUnavailable: Redis did not answer in time (on entering).
            ConfigurationError: There is no such policy.
        """
        check_policy(policy)
        return self._reserved(model_name, policy, wait_secs, candidates)

    @asynccontextmanager
    async def _reserved(
        self,
        model_name: str,
        policy: str,
        wait_secs: float,
        candidates: GiveCandidates | None,
    ) -> AsyncGenerator[Reservation]:
        made = await self._take(model_name, policy, wait_secs, candidates)
        try:
            yield made
        finally:
            with suppress(RegistryError):  # the holder's thread goes on trying
                await self._executor.run(
                    self._reserver.release(made), deadline_secs=RELEASE_SECS
                )

    async def _take(
        self,
        model_name: str,
        policy: str,
        wait_secs: float,
        candidates: GiveCandidates | None,
    ) -> Reservation:
        name = readable(model_name)
        self._bind()
        if name is None:
            msg = f"no instance can have the name {model_name!r:.60}"
            raise NoneAvailable(msg)
        loop, reserver = asyncio.get_running_loop(), self._reserver
        until = loop.time() + wait_secs
        while True:
            try:
                return await self._executor.run(
                    reserver.attempt(name, policy, candidates)
                )
            except NoneAvailable as none:
                pause = reserver.pause_secs(none, until - loop.time())
            await asyncio.sleep(pause)
            self._executor.check_open()  # nobody shall wait on a registry that was closed

    async def in_flight(self, model_name: str) -> dict[Identity, int]:
        """How many reservations of each registered instance of a model are held now.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        name = readable(model_name)
        self._bind()
        if name is None:
            return {}
        return await self._executor.run(self._operations.in_flight(name))
