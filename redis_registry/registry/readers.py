"""What readers ask."""

from __future__ import annotations

from redis_registry.core.inputs import readable
from redis_registry.model import ModelInstance
from redis_registry.registry.base import Base
from redis_registry.selection import pick

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
        """One instance that may take work, uniformly at random; ``None`` if there is none.

        That is: healthy, enabled, ready, of a weight above 0 and not held out. When there is no
        other, one that is only held out: a model's last instances never are.
        """
        name = readable(model_name)
        self._bind()
        if name is None:
            return None
        sampled = await self._executor.run(self._operations.sample(name))
        chosen = pick(sampled, sample=True)
        if chosen is None:
            chosen = pick(await self.get_all_instances(name, healthy_only=True))
        return chosen

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
