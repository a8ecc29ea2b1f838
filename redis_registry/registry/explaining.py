"""Why instances do, or don't, receive work."""

from __future__ import annotations

from typing import overload

from redis_registry.core.explaining import (
    asked_for,
    explained_instance,
    explained_model,
)
from redis_registry.core.explanation import Explanation, ModelExplanation
from redis_registry.model import Identity, ModelInstance
from redis_registry.registry.base import Base

__all__ = ["ExplainSide"]


class ExplainSide(Base):
    """Explain."""

    @overload
    async def explain(self, what: str) -> ModelExplanation: ...
    @overload
    async def explain(self, what: Identity | ModelInstance) -> Explanation: ...
    async def explain(
        self, what: str | Identity | ModelInstance
    ) -> Explanation | ModelExplanation:
        """Why an instance, or a model's instances, may or may not receive new work.

        Whoever may not has exactly one primary reason, with a sentence that says it in figures,
        and what would change it. What was never registered, or has been removed, is answered too.

        Example:
            >>> found = await registry.explain(instance)
            >>> print(found.reason, found.because, found.remedy)

        Args:
            what: A model's name or alias; or an instance, of which only the identity is looked at.

        Raises:
            InvalidInstance: Nothing of that name can be registered.
            RegistryUnavailable: Redis did not answer in time.
        """
        name, identity = asked_for(what)
        self._bind()
        found = await self._executor.run(self._operations.explain(name, identity))
        if identity is None:
            return explained_model(found, self.settings)
        return explained_instance(found, self.settings)
