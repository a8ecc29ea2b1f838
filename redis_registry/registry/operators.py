"""What operators decide."""

from __future__ import annotations

from typing import Unpack

from redis_registry.core.inputs import author_or_self
from redis_registry.core.orders import (
    Decision,
    clearing,
    decided,
    listed_aliases,
    listed_overrides,
)
from redis_registry.model import Identity, ModelInstance
from redis_registry.registry.base import Base
from redis_registry.wire.aliases import Alias
from redis_registry.wire.overrides import Override, Selector

__all__ = ["OperatorSide"]


class OperatorSide(Base):
    """Override what instances say of themselves; point aliases."""

    async def override(
        self,
        selector: Selector | Identity | ModelInstance,
        **decision: Unpack[Decision],
    ) -> Override:
        """Decide about instances, over what they say themselves, until it is cleared or ends.

        It is a record of its own: heartbeats, registrations, new lives and restarts don't undo
        it, and instances that register later are meant too. Every read and every choice
        honours it. Of several on one instance those that mean it alone win over patterns, then
        the later over the earlier, each field for itself.

        Example:
            >>> await registry.override(
            ...     Selector(zone="rack-7"), draining=True, reason="power work", expires_secs=3600
            ... )

        Args:
            selector: Which instances: one, or all that fit a pattern.
            **decision: ``reason`` (why, required), at least one of ``enabled``, ``draining``,
                ``weight``, ``healthy`` and ``labels`` (see
                :class:`~redis_registry.wire.overrides.Override`), ``expires_secs`` (it ends by
                itself), ``author`` (by default the user of this process) and ``name`` (setting
                another one of that name replaces it; by default a new name).

        Returns:
            The override as stored.

        Raises:
            InvalidOverride: A part is not acceptable; nothing was stored.
            LimitReached: A partition holds 1,000 already.
            RegistryUnavailable: Redis did not answer in time.
            OutOfMemory: Redis takes nothing new.
        """
        made, expires_secs = decided(selector, decision)
        self._bind()
        return await self._executor.run(
            self._operations.override(made, expires_secs=expires_secs)
        )

    async def clear_override(
        self, name: str, *, author: str | None = None, reason: str = ""
    ) -> bool:
        """Clear an override: what the instances say of themselves counts again.

        Args:
            name: The override's.
            author: Who decides; by default the user of this process.
            reason: Why.

        Returns:
            Whether there was one of that name.

        Raises:
            InvalidOverride: A part is not acceptable.
            RegistryUnavailable: Redis did not answer in time.
        """
        operation = self._operations.clear_override(*clearing(name, author, reason))
        self._bind()
        return await self._executor.run(operation)

    async def overrides(self) -> list[Override]:
        """The overrides in force, the oldest first.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        self._bind()
        return listed_overrides(await self._executor.run(self._operations.orders()))

    async def set_alias(
        self, alias: str, model_name: str, *, author: str | None = None
    ) -> Alias:
        """Have reads of one name answer with another model's instances, from one moment on.

        Setting it again re-points it: a reader sees the one model or the other, never both or
        none. Instances registered under the alias's own name are not answered to reads of it
        meanwhile. An alias is followed once; one of an alias is refused.

        Args:
            alias: The name that is asked for.
            model_name: The model whose instances are answered.
            author: Who decides; by default the user of this process.

        Raises:
            InvalidOverride: A name is not acceptable, or is an alias itself.
            LimitReached: A partition holds 1,000 already.
            RegistryUnavailable: Redis did not answer in time.
            OutOfMemory: Redis takes nothing new.
        """
        made = Alias.of(
            alias=alias, model_name=model_name, author=author_or_self(author)
        )
        self._bind()
        return await self._executor.run(self._operations.set_alias(made))

    async def remove_alias(self, alias: str, *, author: str | None = None) -> bool:
        """Remove an alias: reads of its name answer with the instances of that name again.

        Returns:
            Whether there was one.

        Raises:
            InvalidOverride: A name is not acceptable.
            RegistryUnavailable: Redis did not answer in time.
        """
        operation = self._operations.remove_alias(*clearing(alias, author))
        self._bind()
        return await self._executor.run(operation)

    async def aliases(self) -> list[Alias]:
        """All aliases, by name.

        Raises:
            RegistryUnavailable: Redis did not answer in time.
        """
        self._bind()
        return listed_aliases(await self._executor.run(self._operations.orders()))
