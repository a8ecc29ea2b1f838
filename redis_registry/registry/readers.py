"""What readers ask."""

from __future__ import annotations

from redis_registry.core.inputs import readable
from redis_registry.model import ModelInstance
from redis_registry.registry.base import Base

__all__ = ["ReaderSide"]


class ReaderSide(Base):
    """Read, select."""

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
        """One that may take work, uniformly at random; ``None`` if there is none.

        One that was ejected and has served its time is chosen as any other, for exactly one
        probe over all replicas: its ``held_out`` is set then. Report how the call ended. When
        all that could work are held out, one of those is better than nobody.
        """
        name = readable(model_name)
        self._bind()
        if name is None:
            return None
        return await self._executor.run(self._operations.select(name))

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
